"""What clients ask first: the endpoints of the cloud."""

from __future__ import annotations

from flask import Blueprint, Response

from tests.stand_ins.azureml import names
from tests.stand_ins.azureml.errors import json_answer


def blueprint(url: str) -> Blueprint:
    """Return the metadata endpoint, in the form of api-version 2019-05-01 that azureml-mlflow reads."""
    routes = Blueprint("cloud_metadata", __name__)

    @routes.get("/metadata/endpoints")
    def endpoints() -> Response:
        cloud = {
            "name": names.CLOUD,
            "portal": url,
            "authentication": {"loginEndpoint": url, "audiences": [url], "tenant": names.TENANT},
            "resourceManager": url,
            "graphAudience": f"{url}/graph",
            "suffixes": {"storage": names.STORAGE_SUFFIX, "keyVaultDns": "vault.stand-in"},
        }
        return json_answer([cloud])

    return routes
