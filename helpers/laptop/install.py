"""Install requirements into this Python's virtual environment: with uv, which takes less than half of pip's time, or else with pip.

``make`` runs this file before any package is there: ``.venv/bin/python helpers/laptop/install.py requirements.txt``.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# pip's setting, and the environment variable in which uv takes the same.
# https://pip.pypa.io/en/stable/cli/pip_install/, https://docs.astral.sh/uv/reference/environment/
IN_UV = {
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "constraint": "UV_CONSTRAINT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "extra-index-url": "UV_EXTRA_INDEX_URL",
    "find-links": "UV_FIND_LINKS",
    "index-url": "UV_INDEX_URL",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "trusted-host": "UV_INSECURE_HOST",
}
# They change what pip prints, where it keeps copies or how often it asks, not what it installs.
IRRELEVANT = {
    "break-system-packages", "cache-dir", "config-file", "disable-pip-version-check", "no-cache-dir", "no-color", "no-input",
    "no-warn-script-location", "progress-bar", "quiet", "retries", "root-user-action", "verbose",
}  # fmt: skip


def main(requirements: str) -> int:
    """Install a file of requirements, and return the exit status."""
    pip = [sys.executable, "-m", "pip"]
    install = [*pip, "install", "--disable-pip-version-check", "--quiet", "--no-compile"]
    settings = pip_settings(subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True).stdout)
    unknown = unknown_to_uv(settings)
    if unknown:
        print(f"Installing with pip, not with uv, because uv has no setting like pip's {', '.join(unknown)}")
    else:
        uv = shutil.which("uv") or _installed_uv(install, requirements)
        if uv:
            environment = os.environ | uv_environment(settings, os.environ)
            uv_install = [uv, "pip", "install", "--quiet", "--python", sys.executable]
            check = [uv, "pip", "check", "--python", sys.executable]
            if _install(uv_install, check, requirements, environment) == 0:
                return 0
            # A certificate or a sign-in that only pip knows, for example.
            print("uv could not install them; trying pip")
    return _install(install, [*pip, "check"], requirements, os.environ)


def _install(install: list[str], check: list[str], requirements: str, environment: Mapping[str, str]) -> int:
    """Install what the file names; if that is not all that it needs, install the rest, too."""
    command = [*install, "--requirement", requirements]
    # PySpark has no wheel. To learn its dependencies, an installer may download and build it again, whatever its cache has.
    status = subprocess.run([*command, "--no-deps"], env=environment, check=False).returncode
    if status == 0 and subprocess.run(check, env=environment, capture_output=True, check=False).returncode:
        status = subprocess.run(command, env=environment, check=False).returncode
    return status


def _installed_uv(install: list[str], requirements: str) -> str | None:
    """Install the version of uv that the requirements name; return None if there is none for this machine."""
    done = subprocess.run([*install, "--no-deps", "--constraint", requirements, "uv"], check=False)
    return None if done.returncode else shutil.which("uv", path=str(Path(sys.executable).parent))


def pip_settings(listed: str) -> dict[str, str]:
    """Return the settings of ``pip install``.

    Parameters
    ----------
    listed : str
        What ``pip config list`` prints. Environment variables go before the section ``install``, and this one before ``global``:
        https://pip.pypa.io/en/stable/topics/configuration/#precedence-override-order
    """
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in sections:
            sections[section][key] = ast.literal_eval(value)
    return sections["global"] | sections["install"] | sections[":env:"]


def unknown_to_uv(settings: Mapping[str, str]) -> list[str]:
    """Return the names of pip's settings that this file cannot hand to uv."""
    return sorted(settings.keys() - IN_UV.keys() - IRRELEVANT)


def uv_environment(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables with which uv installs as pip with its settings does.

    Parameters
    ----------
    settings : mapping of str to str
        pip's, see `pip_settings`.
    environment : mapping of str to str
        This process's. What it sets for uv stays as it is.
    """
    # As pip does: the newest version that any of the indexes has.
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for name in settings.keys() & IN_UV.keys():
        # uv separates several folders by commas, and all else by spaces.
        variables[IN_UV[name]] = (",".join if name == "find-links" else " ".join)(settings[name].split())
    return {name: value for name, value in variables.items() if name not in environment}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
