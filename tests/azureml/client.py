"""Clients of the stand-in: scripts in processes of their own, which read the cloud's addresses on import."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

from tests.azureml.python_process import PythonProcess
from tests.azureml.stand_in import AzureMLStandIn

PRELUDE = """
import json, os, sys
from pathlib import Path

def error(function, *arguments, **named):
    # The plugin raises plain Exceptions, too.
    try:
        function(*arguments, **named)
    except Exception as raised:
        return f"{type(raised).__name__}: {raised}"
"""
ARM = """
from azure.core.rest import HttpRequest
from azure.identity import ClientSecretCredential
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

url = os.environ["AZURE_AUTHORITY_HOST"]

def arm(method, path, body=None, client_id=os.environ["AZURE_CLIENT_ID"], secret=os.environ["AZURE_CLIENT_SECRET"]):
    credential = ClientSecretCredential("adfs", client_id, secret)
    policies = [ARMChallengeAuthenticationPolicy(credential, f"{url}/.default")]
    client = ARMPipelineClient(url, policies=policies)
    request = HttpRequest(method, f"{url}{path}?api-version=2024-05-01", json=body)
    answer = client.send_request(request)
    return [answer.status_code, answer.json()]
"""


class Client:
    """Runs scripts against the stand-in, each in a new process."""

    def __init__(self, aml: AzureMLStandIn, folder: Path) -> None:
        self._environment = os.environ | aml.environment() | {"TRACKING_URI": aml.tracking_uri}
        self._folder = folder

    def run(self, *code: str, **environment: str) -> dict[str, Any]:
        """Return what the script gave to ``answer(name=value)``; it must not raise."""
        with PythonProcess.start(self._folder, self._environment | environment) as process:
            found = process.run("\n".join([PRELUDE, *map(textwrap.dedent, code)]))
        assert "error" not in found, process.output_file.read_text()
        return found
