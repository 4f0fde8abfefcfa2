"""One clear sentence when Java is missing or of a wrong version."""

import pytest
from kerasoft.runtime import java


def fake_java(folder, text):
    file = folder / "bin" / "java"
    file.parent.mkdir(parents=True)
    file.write_text(f"#!/bin/sh\necho '{text}' >&2\n")
    file.chmod(0o755)
    return str(folder)


def test_missing(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(java.JavaError) as error:
        java.require_java()
    assert str(error.value) == (
        "Spark needs Java 17 or newer, and no java was found. Install it: sudo apt-get install -y openjdk-17-jre-headless."
    )


def test_too_old(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path, 'openjdk version "1.8.0_392"'))
    with pytest.raises(java.JavaError, match=r"is Java 8\. Install it: sudo apt-get .* and unset JAVA_HOME"):
        java.require_java()


def test_does_not_start(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(java.JavaError, match="does not start"):
        java.require_java()


@pytest.mark.parametrize(
    "text, major", [('openjdk version "17.0.15" 2025-04-15', 17), ('java version "21" 2023-09-19', 21)]
)
def test_good(monkeypatch, tmp_path, text, major):
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path, text))
    assert java.require_java() == major
