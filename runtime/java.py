"""Finds the Java that Spark would start and says in one sentence what is wrong with it.

Runs before anything is installed (`python runtime/java.py`), so it uses the standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

MINIMUM = 17  # Spark 4 runs on 17 and newer
INSTALL = "sudo apt-get install -y openjdk-17-jre-headless"


class JavaError(RuntimeError):
    """Java is missing, too old, or does not start."""


def java_command() -> str | None:
    """The `java` Spark would run: ``$JAVA_HOME/bin/java``, else the one on PATH; None when there is none."""
    home = os.environ.get("JAVA_HOME")
    if home:
        return os.path.join(home, "bin", "java")
    return shutil.which("java")


def java_version(command: str) -> int:
    """Major version of `command`, e.g. 17.

    Raises:
        JavaError: it does not start, or prints no version.
    """
    try:
        out = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JavaError(
            f"Spark needs Java {MINIMUM} or newer, but {command} does not start ({error}). {_fix()}"
        ) from error
    found = re.search(r'version "(?:1\.)?(\d+)', out.stderr + out.stdout)
    if not found:
        raise JavaError(f"Spark needs Java {MINIMUM} or newer, but {command} -version prints no version. {_fix()}")
    return int(found.group(1))


def require_java() -> int:
    """The major version of the Java that Spark will use.

    Raises:
        JavaError: missing or older than 17; one sentence, with the command that installs it.
    """
    command = java_command()
    if command is None:
        raise JavaError(f"Spark needs Java {MINIMUM} or newer, and no java was found. {_fix()}")
    version = java_version(command)
    if version < MINIMUM:
        raise JavaError(f"Spark needs Java {MINIMUM} or newer, but {command} is Java {version}. {_fix()}")
    return version


def _fix() -> str:
    where = " and unset JAVA_HOME or point it there" if os.environ.get("JAVA_HOME") else ""
    return f"Install it: {INSTALL}{where}."


if __name__ == "__main__":
    try:
        require_java()
    except JavaError as error:
        sys.exit(str(error))
