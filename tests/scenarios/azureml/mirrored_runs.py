"""Random runs to mirror, and the differences between a run and its copy; with plain clients only."""

from __future__ import annotations

import hashlib
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param

LETTERS = "abcXYZ019 _-./äß漢字🙂\"'`\\\n\t%&#+"
NAMES = "abcXYZ019 _-äß漢字"
SPECIAL = [0.0, -0.0, 1e-300, 1e300, math.nan, math.inf, -math.inf]


def log_random(client: MlflowClient, experiment_id: str, seed: int) -> str:
    """Log a random run from a seed, some with a parent, and return its id."""
    chance = random.Random(seed)
    tags = {_name(chance): _text(chance, 900) for _ in range(chance.choice([0, 3, 12]))}
    tags["mlflow.source.name"] = "notebook"
    if seed % 4 == 1:
        tags["mlflow.parentRunId"] = client.search_runs([experiment_id], max_results=1)[0].info.run_id
    start = 1_700_000_000_000 + seed * 1000
    run = client.create_run(experiment_id, start, tags, run_name=f"run {seed} äß漢字🙂"[: chance.randint(5, 12)])
    run_id = run.info.run_id
    parameters = {_name(chance): _text(chance, 400) for _ in range(chance.choice([0, 1, 20, 150]))}
    parameters["empty"] = ""
    client.log_batch(run_id, params=[Param(key, value) for key, value in parameters.items()])
    for _ in range(chance.choice([0, 1, 5, 55])):
        log_metric(client, run_id, _name(chance), chance, chance.choice([1, 2, 7]))
    if seed % 5 == 0:
        # More points than a page of the history or any request can have.
        log_metric(client, run_id, "long", chance, 5300)
    for number in range(chance.choice([0, 1, 3])):
        dataset = Dataset(f"table {number}", f"digest{number}", "local", '{"uri": "x"}', '{"a": 1}', None)
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    log_files(client, run_id, chance, chance.choice([0, 1, 4, 12]))
    for name in ["model", "model", "other"][: chance.choice([0, 0, 1, 3])]:
        log_model(client, experiment_id, run_id, name, chance)
    status = ["FINISHED", "FAILED", "KILLED", "RUNNING"][seed % 4]
    if status != "RUNNING":
        client.set_terminated(run_id, status, start + chance.randint(0, 10**6))
    return run_id


def go_on_and_end(client: MlflowClient, run_id: str) -> None:
    """Log more of everything to a run, write one file again, and rename and end the run."""
    chance = random.Random(run_id)
    client.log_param(run_id, "later", "parameter")
    client.set_tag(run_id, "later", "tag")
    client.set_tag(run_id, "mlflow.source.name", "changed")
    for name in [*client.get_run(run_id).data.metrics, "later"][-4:]:
        log_metric(client, run_id, name, chance, 20)
    log_files(client, run_id, chance, 3)
    for item in client.list_artifacts(run_id):
        if not item.is_dir:
            # The same number of bytes as before.
            client.log_text(run_id, "#" * item.file_size, item.path)
    client.update_run(run_id, name="another name")
    client.set_terminated(run_id, "FINISHED")


def log_metric(client: MlflowClient, run_id: str, name: str, chance: random.Random, points: int) -> None:
    """Log a metric with repeated, negative and missing steps, and all kinds of values."""
    now = int(time.time() * 1000)
    rows = [
        Metric(
            name,
            chance.choice([*SPECIAL, *(chance.gauss(0, 1) for _ in range(30))]),
            now + number // 2,
            number // 3 - 1,
        )
        for number in range(points)
    ]
    # Keep one such point per time: the server that imitates Databricks refuses equal points without a number, and
    # whether zero or NaN is the latest value depends on which came first.
    rows = list(
        {(row.timestamp, row.step, 0 if math.isnan(row.value) else abs(row.value)): row for row in rows}.values()
    )
    for first in range(0, points, 1000):
        client.log_batch(run_id, metrics=rows[first : first + 1000])


def log_files(client: MlflowClient, run_id: str, chance: random.Random, count: int) -> None:
    """Log files: empty, nested, with names that must be quoted, and one larger than a request."""
    for _ in range(count):
        folder = "/".join(_file_name(chance) for _ in range(chance.choice([0, 1, 4])))
        _log_file(client, run_id, folder, _file_name(chance), chance.randbytes(chance.choice([0, 1, 5000, 9_000_000])))


def log_model(client: MlflowClient, experiment_id: str, run_id: str, name: str, chance: random.Random) -> None:
    """Log a model of MLflow 3, which is stored outside the run's artifacts."""
    model = client.create_logged_model(experiment_id, name, run_id)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "MLmodel").write_text(f"run_id: {run_id}\nmodel_id: {model.model_id}\n")
        Path(folder, "data").mkdir()
        Path(folder, "data", "weights.bin").write_bytes(chance.randbytes(2000))
        client.log_model_artifacts(model.model_id, folder)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])


def differences(source: MlflowClient, target: MlflowClient, run_id: str) -> list[str]:
    """Return the fields in which a run and its copy differ; nothing if they are equal."""
    run = source.get_run(run_id)
    copy_id = run.data.tags.get("mirrored_to_run_id")
    if copy_id is None:
        return ["no copy is named"]
    copy = target.get_run(copy_id)
    expected, actual = described(source, run), described(target, copy)
    parent = run.data.tags.get("mlflow.parentRunId")
    expected["parent"] = source.get_run(parent).data.tags["mirrored_to_run_id"] if parent else None
    actual["parent"] = copy.data.tags.get("mlflow.parentRunId")
    expected["source"], actual["source"] = run_id, copy.data.tags.get("mirrored_from_run_id")
    return [
        f"{key}: {str(value)[:200]} is {str(actual[key])[:200]}"
        for key, value in expected.items()
        if value != actual[key]
    ]


def described(client: MlflowClient, run: Any) -> dict[str, Any]:
    """Return everything in a run, as values that can be compared."""
    run_id = run.info.run_id
    ours = ("mirrored_", "mlflow.parentRunId", "mlflow.runName", "mlflow.user")
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "start": run.info.start_time,
        "end": run.info.end_time,
        "params": run.data.params,
        "tags": {key: value for key, value in run.data.tags.items() if not key.startswith(ours)},
        "latest": sorted((key, repr(value)) for key, value in run.data.metrics.items()),
        "history": {key: sorted(_points(client, run_id, key)) for key in run.data.metrics},
        "inputs": sorted(
            (
                i.dataset.name,
                i.dataset.digest,
                i.dataset.source,
                str(i.dataset.schema),
                [(t.key, t.value) for t in i.tags],
            )
            for i in run.inputs.dataset_inputs
        ),
        "files": files(client, run),
    }


def files(client: MlflowClient, run: Any) -> dict[str, str]:
    """Return the content of a run's files; those of a logged model are under the folder of its copy."""
    folders: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as scratch:
        outputs = run.outputs.model_outputs if run.outputs else []
        models = [client.get_logged_model(output.model_id) for output in outputs]
        for model in sorted(models, key=lambda model: (model.creation_timestamp, model.model_id)):
            name = model.name if model.name not in folders else f"{model.name}_{model.model_id}"
            folders[name] = Path(model.artifact_location.removeprefix("file://"))
        uri = client.tracking_uri
        if uri.startswith("azureml"):
            # The plugin signs in through the process's tracking server; nothing else runs while tests compare.
            before = mlflow.get_tracking_uri()
            mlflow.set_tracking_uri(uri)
            try:
                if client.list_artifacts(run.info.run_id):
                    folders[""] = Path(client.download_artifacts(run.info.run_id, "", scratch))
            finally:
                mlflow.set_tracking_uri(before)
        else:
            folders[""] = Path(unquote(run.info.artifact_uri.removeprefix("file://")))
        return {
            str(Path(name) / path): text for name, folder in folders.items() for path, text in contents(folder).items()
        }


def contents(folder: Path) -> dict[str, str]:
    """Return `content` of each file below a folder, by its path."""
    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def content(file: Path) -> str:
    """Return a file's size and the beginning of its checksum, to compare files."""
    return f"{file.stat().st_size} {hashlib.sha256(file.read_bytes()).hexdigest()[:8]}"


def _points(client: MlflowClient, run_id: str, key: str) -> list[tuple[int, int, str]]:
    return [(point.step, point.timestamp, repr(point.value)) for point in client.get_metric_history(run_id, key)]


def _log_file(client: MlflowClient, run_id: str, folder: str, name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, name)
        file.write_bytes(content)
        client.log_artifact(run_id, str(file), folder or None)


def _name(chance: random.Random) -> str:
    folder = chance.choice(["", "val/", "v1.5/é "])
    return f"{folder}n{''.join(chance.choice(NAMES) for _ in range(chance.randint(0, 30)))}x"


def _file_name(chance: random.Random) -> str:
    return "f" + "".join(chance.choice("abc XYZ_-+=ä漢🙂") for _ in range(chance.randint(0, 12))) + ".bin"


def _text(chance: random.Random, length: int) -> str:
    return "".join(chance.choice(LETTERS) for _ in range(chance.choice([0, 3, length])))
