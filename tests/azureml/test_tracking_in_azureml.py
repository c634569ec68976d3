"""`helpers.tracking` against Azure ML and Databricks: runs, models, versions, the champion, and lost servers."""

import pytest

from tests.azureml import both_servers
from tests.azureml.client import Client

HELPERS = """
import time

import mlflow
import pandas as pd
from sklearn.linear_model import LogisticRegression
from helpers import registration, tracking
from helpers.training import TrainedModel
from tests.azureml import both_servers

def configure(**changes):
    return tracking.configure(both_servers.parameters(**changes))

rows = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
model = LogisticRegression().fit(rows, ["a", "a", "b", "b"])
signature = mlflow.models.infer_signature(rows, pd.Series(model.predict(rows), name="prediction"))
trained = TrainedModel(model, "sklearn", ["a", "b"], signature, rows, {}, {})

def train():
    with mlflow.start_run(tags={tracking.MODEL_NAME_TAG: "small"}) as run:
        mlflow.log_metric("loss", 0.5, step=1)
        tracking.log_model(trained)
    return mlflow.get_run(run.info.run_id)
"""


@pytest.fixture
def run(aml, databricks, tmp_path):
    """Run a script that uses the helpers, in a process of its own, signed in to both."""
    variables = both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(tmp_path / "local")}
    yield lambda *code, **more: Client(aml, tmp_path).run(HELPERS, *code, **variables | more)
    aml.faults.clear()


REGISTER_TWO = """
runs = [train(), train()]
name = os.environ["NAME"]
made = [
    registration.register(run, tracking.logged_model_uri(run), name, {"n": str(i)})
    for i, run in enumerate([*runs, runs[0]])
]
champions = [tracking.champion(name), tracking.champion("nobody")]
for number in ("1", "2", "1", "1"):
    tracking.promote(name, number)
    champions.append(str(registration.resolve_version(name, "").version))
# As a promotion leaves it that is killed before it has taken the tag from the champion before.
mlflow.MlflowClient().set_model_version_tag(name, "2", tracking.CHAMPION, str(time.time_ns()))
champions.append(str(tracking.champion(name).version))
tracking.promote(name, "1")
champions.append(str(tracking.champion(name).version))
scored = mlflow.pyfunc.load_model(str(tracking.download_model(f"models:/{name}/2", Path("downloaded")))).predict(rows)
answer(
    runs=[run.info.run_id for run in runs],
    made=[[str(version.version), tracking.run_id(version), new] for version, new in made],
    tags={str(version.version): version.tags for version in tracking.versions(name)},
    champions=champions,
    scored=list(scored),
    missing=[error(registration.resolve_version, name, "3"), error(registration.resolve_version, "nobody", "")],
    found=tracking.find_run(servers, "", "small").info.run_id,
    table=servers.table().to_dict("records"),
    page=servers.run_page(runs[0].info.run_id),
)
"""


@pytest.mark.parametrize("tracking_mode", ["azureml", "databricks"])
def test_in_azure_mls_registry_a_run_is_registered_once_and_the_champion_moves(aml, databricks, run, tracking_mode):
    found = run(
        f"""
        servers = configure(
            tracking_mode={tracking_mode!r}, model_registry="azureml", experiment_name="/Shared/moves"
        )
        """,
        REGISTER_TWO,
        NAME=f"moves_{tracking_mode}",
    )
    first, second = found["runs"]
    assert found["made"] == [["1", first, True], ["2", second, True], ["1", first, False]]
    assert found["champions"] == [None, None, "1", "2", "1", "1", "2", "1"]
    server = {"azureml": aml.tracking_uri, "databricks": databricks.url}[tracking_mode]
    assert {name: found["tags"]["1"][name] for name in ("n", "run_id", "tracking_server")} == {
        "n": "2", "run_id": first, "tracking_server": server
    }  # fmt: skip
    assert "champion" in found["tags"]["1"] and "champion" not in found["tags"]["2"]
    assert found["scored"] == ["a", "a", "b", "b"]
    assert "model_version='3'" in found["missing"][0] and "it has: 1, 2" in found["missing"][0]
    assert "model_name='nobody'" in found["missing"][1] and "Run 03_register first" in found["missing"][1]
    assert found["found"] == second
    links = {row["what"]: row["open"] for row in found["table"]}
    assert links["model registry"].startswith("https://ml.azure.com/model/list?wsid=/subscriptions/")
    studio = "https://ml.azure.com"
    assert links["experiment"].startswith(f"{studio}/experiments/" if tracking_mode == "azureml" else databricks.url)
    assert found["page"].startswith(f"{studio}/runs/{first}?" if tracking_mode == "azureml" else databricks.url)


def test_autolog_leaves_a_finished_run_with_its_metrics_in_azure_ml(run):
    found = run(
        """
        servers = configure(tracking_mode="azureml", experiment_name="autolog")
        tracking.autolog(silent=True)
        with mlflow.start_run() as run:
            LogisticRegression(C=0.5).fit(rows, ["a", "a", "b", "b"])
        run = mlflow.get_run(run.info.run_id)
        answer(status=run.info.status, c=run.data.params["C"], metrics=sorted(run.data.metrics))
        """
    )
    assert found["status"] == "FINISHED" and found["c"] == "0.5"
    assert "training_accuracy_score" in found["metrics"]


def test_a_run_whose_server_goes_away_is_never_taken_for_a_finished_one(aml, run):
    found = run(
        """
        faults = both_servers.stand_in().faults
        servers = configure(tracking_mode="azureml", experiment_name="lost")
        complete = train()

        def lose_the_server():
            with mlflow.start_run(tags={tracking.MODEL_NAME_TAG: "small"}):
                mlflow.log_metric("loss", 0.5, step=1)
                faults.add("/mlflow/", 503)
                mlflow.log_metric("loss", 0.4, step=2)

        refused = error(lose_the_server)
        faults.clear()
        lost = mlflow.last_active_run()
        answer(
            refused=refused, complete=complete.info.run_id, lost=lost.info.run_id,
            status=mlflow.get_run(lost.info.run_id).info.status,
            newest=tracking.find_run(servers, "", "small").info.run_id,
            named=error(tracking.find_run, servers, lost.info.run_id, "small"),
        )
        """,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="1",
    )
    assert "503" in found["refused"]
    assert found["newest"] == found["complete"] != found["lost"]
    assert f"run_id='{found['lost']}': this run is {found['status']}, not FINISHED" in found["named"]
