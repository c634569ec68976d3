"""Requirements are installed from where pip would take them: with uv, or with pip where uv lacks one of its settings."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from helpers.laptop import install

METADATA = "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n{}"


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    """A folder with two packages that no index has, and a file of requirements that names the one that needs the other."""
    folder = tmp_path_factory.mktemp("company")
    for name, needs in {"company_package": "Requires-Dist: company-base\n", "company_base": ""}.items():
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "")
            wheel.writestr(f"{name}-1.0.dist-info/METADATA", METADATA.format(name.replace("_", "-"), needs))
            wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    (folder / "requirements.txt").write_text("company-package==1.0\n")
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment with nothing but pip."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    return folder


@pytest.mark.parametrize(
    ("variables", "installer", "printed"),
    [
        ({}, "uv", ""),
        ({"PIP_PREFER_BINARY": "1"}, "pip", "uv has no setting like pip's no-index, prefer-binary"),
        ({"UV_CONFIG_FILE": "missing.toml"}, "pip", "uv could not install them; trying pip"),
    ],
    ids=["uv", "a setting that uv lacks", "uv fails"],
)
def test_a_package_is_found_where_pips_settings_say(company, environment, variables, installer, printed, tmp_path):
    # An address that nothing listens to: the package comes from the folder.
    index = "no-index = true" if "no-index" in printed else "index-url = http://127.0.0.1:9/\nretries = 0"
    (tmp_path / "pip.conf").write_text(f"[global]\n{index}\n[install]\nfind-links = {company}\n")
    python = environment / "bin" / "python"
    process = subprocess.run(
        [python, install.__file__, company / "requirements.txt"],
        env=_without_pips_variables() | {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "UV_OFFLINE": "1"} | variables,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    packages = list(environment.glob("lib/python*/site-packages/company_*-1.0.dist-info"))
    assert [(package / "INSTALLER").read_text().strip() for package in packages] == [installer] * 2
    assert printed in process.stdout and bool(printed) == bool(process.stdout)
    subprocess.run(
        [python, "-m", "pip", "uninstall", "--yes", "--quiet", "company-package", "company-base"], check=True
    )


def test_pips_settings_are_those_of_the_environment_then_of_the_command_then_the_general_ones(tmp_path):
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://general/\ntimeout = 7\ncert = a.pem\n[install]\nindex-url = https://install/\n"
        "cert = b.pem\n[download]\nindex-url = https://download/\n"
    )
    variables = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_CERT": "c.pem"}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env=_without_pips_variables() | variables, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    settings = install.pip_settings(listed)
    assert {name: settings[name] for name in ("index-url", "timeout", "cert")} == {
        "index-url": "https://install/",
        "timeout": "7",
        "cert": "c.pem",
    }


def test_uv_gets_each_setting_in_its_own_form_but_what_the_user_has_set_for_uv_stays():
    settings = {
        "find-links": "/wheels\nhttps://wheels/",
        "extra-index-url": "https://one/\nhttps://two/",
        "timeout": "7",
        "no-color": "1",
    }
    assert install.unknown_to_uv(settings) == []
    assert install.uv_environment(settings, {"UV_HTTP_TIMEOUT": "30"}) == {
        "UV_FIND_LINKS": "/wheels,https://wheels/",
        "UV_EXTRA_INDEX_URL": "https://one/ https://two/",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def _without_pips_variables() -> dict[str, str]:
    """Return the environment of a process that has uv, but none of the settings of this machine."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    return variables | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
