"""Sign-in: the token endpoint, and the check of the tokens that it issued."""

from __future__ import annotations

import secrets
import time
from collections import Counter

import jwt
from flask import Blueprint, Response, request

from tests.stand_ins.azureml import names
from tests.stand_ins.azureml.errors import arm_error, empty_answer, entra_error, json_answer

PREFIX = f"/{names.TENANT}"


class Entra:
    """Issues tokens to known clients, and checks the tokens of requests.

    Parameters
    ----------
    url : str
        Of the server.
    token_lifetime : int
        Seconds.
    """

    def __init__(self, url: str, token_lifetime: int) -> None:
        self._url = url
        self._token_lifetime = token_lifetime
        self._key = secrets.token_hex(32)
        # The generation per application; a token of an earlier generation is revoked.
        self._generations: Counter[str] = Counter()
        self.blueprint = Blueprint("entra", __name__, url_prefix=PREFIX)
        self.blueprint.get("/.well-known/openid-configuration")(self._configuration)
        self.blueprint.post("/oauth2/token")(self._token)
        self.blueprint.post("/devicecode")(self._device_code)
        self.machine = Blueprint("instance_metadata", __name__)
        self.machine.get("/metadata/identity/oauth2/token")(self._machine_token)

    def revoke_tokens(self, client_id: str) -> None:
        """Revoke the tokens that an application has received so far."""
        self._generations[client_id] += 1

    def refusal(self) -> Response | None:
        """Return why the current request is refused, or None if its token is valid.

        The wording is Azure Resource Manager's, except where AML's answer is empty.
        """
        answer = self._refusal()
        return empty_answer(answer.status_code) if answer and request.path.startswith("/mlflow/") else answer

    def scoring_token(self, endpoint_id: str | None) -> dict[str, str | int]:
        """Return a token for one online endpoint, or, without an endpoint, a new token of the caller.

        ``EndpointAuthToken`` in the REST specification.
        """
        claims = {"endpoint": endpoint_id}
        if endpoint_id is None:
            claims = {"appid": self._claims(request.headers["Authorization"].partition(" ")[2])["appid"]}
        token = self._access_token(**claims)
        expiry = int(time.time()) + self._token_lifetime
        times = {"expiryTimeUtc": expiry, "refreshAfterTimeUtc": expiry - self._token_lifetime // 2}
        return {"accessToken": token["access_token"], "tokenType": "Bearer"} | times

    def is_scoring_token(self, token: str, endpoint_id: str) -> bool:
        """Return whether a token is valid for one online endpoint."""
        try:
            return self._claims(token).get("endpoint") == endpoint_id
        except jwt.InvalidTokenError:
            return False

    def _claims(self, token: str) -> dict[str, str]:
        return jwt.decode(token, self._key, ["HS256"], options={"verify_aud": False})

    def _refusal(self) -> Response | None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer":
            message = "Authentication failed. The 'Authorization' header is missing."
            return _unauthorized("AuthenticationFailed", message)
        try:
            claims = self._claims(token)
            client_id = claims["appid"]
        except jwt.ExpiredSignatureError:
            return _unauthorized("ExpiredAuthenticationToken", "The access token has expired.")
        # A token without an application is for scoring only.
        except (jwt.InvalidTokenError, KeyError):
            return _unauthorized("InvalidAuthenticationToken", "The access token is invalid.")
        if claims["generation"] != self._generations[client_id]:
            return _unauthorized("ExpiredAuthenticationToken", "The access token has expired.")
        if client_id == names.CLIENT_ID_WITHOUT_ROLE:
            # https://learn.microsoft.com/azure/role-based-access-control/troubleshooting
            message = f"The client '{client_id}' with object id '{client_id}' does not have authorization to perform"
            message += f" action '{_action()}' over scope '{request.path}' or the scope is invalid."
            return arm_error(403, "AuthorizationFailed", message)
        return None

    def _configuration(self) -> Response:
        authority = self._url + PREFIX
        endpoints = {"token": "oauth2/token", "authorization": "oauth2/authorize", "device_authorization": "devicecode"}
        content = {f"{name}_endpoint": f"{authority}/{path}" for name, path in endpoints.items()}
        return json_answer(content | {"issuer": authority})

    def _token(self) -> Response:
        client_id, secret = request.form.get("client_id", ""), request.form.get("client_secret", "")
        if request.form.get("device_code") or request.form.get("refresh_token"):
            return self._user_token(client_id)
        if client_id not in (names.CLIENT_ID, names.OTHER_CLIENT_ID, names.CLIENT_ID_WITHOUT_ROLE):
            message = f"Application with identifier '{client_id}' was not found in the directory 'stand-in'."
            return entra_error(400, "unauthorized_client", 700016, message)
        if secret == names.EXPIRED_SECRET:
            message = f"The provided client secret keys for app '{client_id}' are expired."
            return entra_error(401, "invalid_client", 7000222, message)
        if secret != names.CLIENT_SECRET:
            message = "Invalid client secret provided. Ensure the secret being sent in the request is the client"
            message += f" secret value, not the client secret ID, for a secret added to app '{client_id}'."
            return entra_error(401, "invalid_client", 7000215, message)
        return json_answer(self._access_token(appid=client_id))

    def _device_code(self) -> Response:
        """Return what to show to the user, who has signed in as soon as the client asks.

        https://learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code
        """
        page = f"{self._url}/device"
        message = f"To sign in, open {page} in a browser and enter the code STANDIN1."
        content = {"device_code": "device-code", "user_code": "STANDIN1", "verification_uri": page, "message": message}
        return json_answer(content | {"expires_in": 900, "interval": 1})

    def _user_token(self, client_id: str) -> Response:
        answer = self._access_token(appid=client_id, upn=names.USER)
        claims = {"aud": client_id, "sub": names.USER, "upn": names.USER, "iss": self._url + PREFIX}
        id_token = jwt.encode(claims | {"iat": time.time(), "exp": time.time() + 3600}, self._key, "HS256")
        return json_answer(answer | {"id_token": id_token, "refresh_token": "refresh-token", "scope": "openid"})

    def _machine_token(self) -> Response:
        """Issue a token to any process on the machine, as the Azure Instance Metadata Service does.

        https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
        """
        problem = ""
        if request.headers.get("Metadata") != "true":
            problem = "Required metadata header not specified"
        elif request.args.get("client_id", names.MANAGED_IDENTITY_CLIENT_ID) != names.MANAGED_IDENTITY_CLIENT_ID:
            problem = "Identity not found"
        if problem:
            return json_answer({"error": "invalid_request", "error_description": problem}, 400)
        answer = self._access_token(appid=names.MANAGED_IDENTITY_CLIENT_ID)
        return json_answer({key: str(value) for key, value in answer.items()} | {"resource": request.args["resource"]})

    def _access_token(self, **claims: str) -> dict[str, str | int]:
        now = int(time.time())
        times = {"aud": self._url, "iat": now, "exp": now + self._token_lifetime}
        generation = {"generation": self._generations[claims.get("appid", "")]}
        token = jwt.encode(claims | times | generation, self._key, "HS256")
        return {"token_type": "Bearer", "expires_in": self._token_lifetime, "access_token": token}


def _unauthorized(code: str, message: str) -> Response:
    answer = arm_error(401, code, message)
    answer.headers["WWW-Authenticate"] = f'Bearer error="invalid_token", error_description="{message}"'
    return answer


def _action() -> str:
    provider, *path = request.path.partition("/providers/")[2].split("/")
    verb = {"GET": "read", "HEAD": "read", "DELETE": "delete", "POST": "action"}.get(request.method, "write")
    if not request.path.startswith("/subscriptions/"):
        verb = "read" if verb == "read" else "write"
        return f"{provider or 'Microsoft.MachineLearningServices'}/workspaces/{verb}"
    # Types and names alternate.
    return "/".join([provider, *path[::2], verb])
