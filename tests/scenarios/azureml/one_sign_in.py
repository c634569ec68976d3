"""A process that uses everything in Azure ML that notebooks use, in one session."""

from __future__ import annotations

import mlflow

from helpers import azureml, parameters, serving, tracking
from helpers.tracking import inventory
from tests.scenarios.azureml import tracked_models
from tests.stand_ins import both_servers
from tests.stand_ins.azureml_workspace import AzureMLStandIn


def use_everything() -> dict[str, dict[str, int]]:
    """Track, register, list for clean-up, open an endpoint and look at the link.

    Returns
    -------
    dict of str to (dict of str to int)
        The requests of each step: ``sign_ins`` to Entra ID, and ``others``.
    """
    aml = AzureMLStandIn.from_environment()
    steps: dict[str, dict[str, int]] = {}
    received = len(aml.requests())

    def end_step(name: str) -> None:
        nonlocal received
        requests = aml.requests()[received:]
        sign_ins = [request for request in requests if request.path.endswith("/oauth2/token")]
        steps[name] = {"sign_ins": len(sign_ins), "others": len(requests) - len(sign_ins)}
        received += len(requests)

    changes = {"tracking_mode": "azureml", "experiment_name": "one_sign_in", "model_name": "one_sign_in"}
    session = tracking.configure(both_servers.parameters(parameters.Register, **changes))
    end_step("configure")
    run = tracked_models.log_run("one_sign_in")
    end_step("track")
    version = tracking.create_version(session, run, tracking.logged_model_uri(session, run), "one_sign_in", {})
    end_step("register")
    p = both_servers.parameters(parameters.CleanUp, **changes)
    # Nothing of this needs Spark.
    assert [*serving.items(None, session, p), *inventory.items(None, session, p)]
    end_step("list for clean-up")
    endpoint, _ = serving.open_endpoint(session, both_servers.parameters(parameters.Deploy, **changes), version)
    assert endpoint.state() is None
    end_step("open an endpoint")
    azureml.workspace_link(session.connection, AzureMLStandIn.databricks_workspace_resource_id)
    end_step("look at the link")
    mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    end_step("load with MLflow's own function")
    return steps
