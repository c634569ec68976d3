"""The code and the environment of ``endpoint_environment=own``, as assets of the Azure ML workspace.

The code is the file score.py. The environment is made of a conda file on a base image of the vendor. Both are named by their
content: made once, used by each deployment that has the same, and never changed.
https://learn.microsoft.com/rest/api/azureml/code-versions and environment-versions next to it
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.azureml.blobs import signed_container
from helpers.azureml.rest import AzureError, wait
from helpers.azureml.workspace import API_VERSION, Workspace
from helpers.ownership import MARK, NOT_OURS, OTHER_MODEL, Item
from helpers.parameters import ParameterError
from helpers.tracking.models import FOR_ENDPOINTS

if TYPE_CHECKING:
    from helpers import parameters

SCRIPT = Path(__file__).with_name("score.py")
# What `conda_file` reads of a model.
READ = ("MLmodel", "conda.yaml")
# Spark 3.5 and 4 run on it: https://spark.apache.org/docs/latest/
_JAVA = "openjdk=17"
_CODE_FOLDER = "onlinescoring"
# A user and password, or a token, in front of a host; a signature or token behind one; a token of a conda channel.
_SECRET = re.compile(r"https?://[^/\s@]+@|\w://[^/\s@:]+:[^/\s@]+@|[?&](?:sig|token|key)=|https?://\S*/t/[^/\s]+/")
_FEEDS = "https://learn.microsoft.com/azure/machine-learning/how-to-use-private-python-packages"
_LONGEST_WAIT_SECONDS = 10 * 60


def conda_file(p: parameters.Endpoint, model_folder: Path) -> str:
    """Return the conda file of a model's environment: the model's own, or the one that ``endpoint_conda_file`` names.

    What Azure ML's server and the scoring script need is added, and Java for a Spark ML model, unless the file lists it.

    Parameters
    ----------
    p : helpers.parameters.Endpoint
    model_folder : pathlib.Path
        With the files ``MLmodel`` and ``conda.yaml``.

    Raises
    ------
    helpers.parameters.ParameterError
        If the file does not exist, is not a conda file, or has a credential in it.
    """
    import yaml
    from mlflow.models import Model

    parameter, value = "endpoint_conda_file", p.endpoint_conda_file
    file = Path(value) if value else model_folder / "conda.yaml"
    if not value:
        parameter, value = "endpoint_environment", p.endpoint_environment
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "the model has no conda.yaml; name a file in endpoint_conda_file"
        raise ParameterError(
            parameter, value, f"cannot be read: {error}" if p.endpoint_conda_file else reason
        ) from None
    if _SECRET.search(text):
        raise ParameterError(
            parameter,
            value,
            "the conda file has an address with a credential, which everybody in the workspace could read. Write the address "
            f"without it, and give the credential to a connection of the workspace, {_FEEDS}",
        )
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParameterError(parameter, value, f"the conda file is not YAML: {' '.join(str(error).split())}") from None
    dependencies = content.get("dependencies") if isinstance(content, dict) else None
    if not isinstance(dependencies, list):
        raise ParameterError(parameter, value, "the conda file has no list of dependencies")
    with_pip = next((each for each in dependencies if isinstance(each, dict) and "pip" in each), None)
    if with_pip is None:
        with_pip = {"pip": []}
        dependencies += ["pip", with_pip]
    packages = [each for each in dependencies if isinstance(each, str)]
    listed = {_name(line) for line in [*packages, *with_pip["pip"]]}
    with_pip["pip"] += [line for line in FOR_ENDPOINTS if _name(line) not in listed]
    if "spark" in Model.load(model_folder).flavors and "openjdk" not in listed:
        dependencies.insert(0, _JAVA)
    return yaml.safe_dump(content, sort_keys=False)


def _name(requirement: str) -> str:
    """Return the package of a requirement of pip or conda; conda's may name a channel first."""
    return re.split(r"[^a-z0-9-]", requirement.rpartition("::")[2].strip().lower().replace("_", "-"))[0]


def settings(workspace: Workspace, p: parameters.Endpoint, model_name: str, conda: str) -> dict[str, Any]:
    """Make the two assets unless they exist, and return the properties of a deployment that name them.

    Parameters
    ----------
    workspace : helpers.azureml.workspace.Workspace
    p : helpers.parameters.Endpoint
    model_name : str
        Of Azure ML's registry. The assets are this model's.
    conda : str
        From `conda_file`.

    Raises
    ------
    helpers.azureml.rest.AzureError
        If Azure ML refuses one of them, if it does not get ready, or if the code cannot be uploaded.
    """
    script = SCRIPT.read_bytes()
    code = _path(workspace, "codes", model_name, hashlib.sha256(script).hexdigest())
    if _read(workspace, code) is None:
        uri = _upload(workspace, code, script)
        _make(workspace, code, model_name, {"codeUri": uri})
    content = {"image": p.endpoint_image, "condaFile": conda, "osType": "Linux"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    environment = _path(workspace, "environments", model_name, digest)
    if _read(workspace, environment) is None:
        _make(workspace, environment, model_name, content)
    return {"codeConfiguration": {"codeId": code, "scoringScript": SCRIPT.name}, "environmentId": environment}


def _path(workspace: Workspace, kind: str, model_name: str, digest: str = "") -> str:
    versions = f"{workspace.resource_id}/{kind}/{model_name}-endpoint/versions"
    return f"{versions}/{digest[:16]}" if digest else versions


def _read(workspace: Workspace, path: str) -> dict[str, Any] | None:
    try:
        return workspace.manager.get(path, api_version=API_VERSION)
    except AzureError as error:
        if error.status != 404:
            raise
        return None


def _upload(workspace: Workspace, code: str, script: bytes) -> str:
    """Upload the script to a place that Azure ML makes for it, and return its URI; `azure-ai-ml` does the same.

    The place is new each time. So nothing of an upload that was interrupted is ever used, and two at once do not meet.
    https://learn.microsoft.com/rest/api/azureml/code-versions/create-or-get-start-pending-upload
    """
    question = {"pendingUploadType": "TemporaryBlobReference"}
    answer = workspace.manager.post(f"{code}/startPendingUpload", question, api_version=API_VERSION)
    place = answer["blobReferenceForConsumption"]
    with signed_container(place["credential"]["sasUri"], f"{SCRIPT.name} cannot be uploaded to") as container:
        container.upload_blob(f"{_CODE_FOLDER}/{SCRIPT.name}", script, overwrite=True)
    return f"{place['blobUri'].rstrip('/')}/{_CODE_FOLDER}"


def _make(workspace: Workspace, path: str, model_name: str, properties: dict[str, Any]) -> None:
    body = {"properties": properties | {"isAnonymous": False, "tags": {MARK: model_name}}}
    try:
        workspace.manager.put(path, body, api_version=API_VERSION)
    except AzureError:
        # Another deployment has made it meanwhile, and a version cannot be changed. Its name says that it is the same.
        if _read(workspace, path) is None:
            raise

    def state() -> str:
        properties = workspace.manager.get(path, api_version=API_VERSION)["properties"]
        return properties.get("provisioningState") or "Succeeded"

    ended = wait(state, _LONGEST_WAIT_SECONDS)
    if ended != "Succeeded":
        raise AzureError(f"{path} is in state {ended}; delete it in the workspace, and run this again")


def items(workspace: Workspace, model_name: str, endpoints: Iterable[Item]) -> Iterator[Item]:
    """Return the assets of a model for clean-up.

    Parameters
    ----------
    workspace : helpers.azureml.workspace.Workspace
    model_name : str
    endpoints : iterable of Item
        Endpoints and deployments. Those of the model in the workspace have to be deleted before.
    """
    where = f"Azure ML workspace {workspace.name}"
    first = [item for item in endpoints if item.where == where and item.keep_reason not in (NOT_OURS, OTHER_MODEL)]
    # Azure lists environments that somebody has archived only if it is asked to; codes cannot be archived.
    for kind, view in (("codes", {}), ("environments", {"listViewType": "All"})):
        versions = _path(workspace, kind, model_name)
        try:
            resources = list(workspace.manager.get_all(versions, api_version=API_VERSION, **view))
        except AzureError as error:
            if error.status != 404:
                raise
            continue
        for resource in resources:
            made_for = (resource["properties"].get("tags") or {}).get(MARK)
            reason = "" if made_for == model_name else NOT_OURS if made_for is None else OTHER_MODEL
            name = f"{kind}/{model_name}-endpoint/{resource['name']}"
            delete = partial(_delete, workspace, f"{versions}/{resource['name']}")
            yield Item("environments", name, where, delete, reason, tuple(first))


def _delete(workspace: Workspace, path: str) -> bool:
    # https://learn.microsoft.com/rest/api/azureml/environment-versions/delete and code-versions/delete
    if _read(workspace, path) is None:
        return False
    workspace.manager.delete(path, api_version=API_VERSION)
    return True
