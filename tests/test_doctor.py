"""`python -m kerasoft.doctor`: says what holds, fails with the fix."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.spark


def doctor(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "kerasoft.doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable, **environment},
    )


def test_a_cluster_that_can_train():
    out = doctor("--master", "local[2]", "--params", "1000000", "--conf", "spark.ui.enabled=false")
    assert out.returncode == 0, out.stdout + out.stderr
    assert "ok       2 slots, at least 1 needed" in out.stdout and "memory per worker, estimated: " in out.stdout


def test_a_cluster_that_cannot():
    out = doctor("--master", "local[2]", "--workers", "3")
    assert out.returncode == 1
    assert "FAILED   3 workers were asked for and 2 can run at once. Use AllReduce(workers=2) or less" in out.stdout


def test_no_java(tmp_path):
    out = doctor(JAVA_HOME="", PATH=str(tmp_path))
    assert out.returncode == 1
    assert "no java was found. Install it: sudo apt-get install -y openjdk-17-jre-headless." in out.stdout
