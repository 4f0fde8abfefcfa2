"""A SparkSession with settings that suit training; for examples, the doctor and notebooks. Yours works as well."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from .java import require_java

DEFAULTS = {
    "spark.ui.showConsoleProgress": "false",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "2s",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "30",
    "spark.executor.heartbeatInterval": "5s",
}


def session(name: str, master: str | None = None, settings: Mapping[str, str] | None = None) -> Any:
    """A new or the running SparkSession.

    Args:
        name: of the application.
        master: e.g. ``local[2]`` or ``local-cluster[2,1,1024]`` (two executor processes with a core and 1,024 MB each);
            None leaves it to `spark-submit`.
        settings: Spark configuration, over the defaults of this file.

    Raises:
        JavaError: Java is missing or too old.
    """
    require_java()
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(name)
    if master:
        builder = builder.master(master)
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.ui.enabled", "false")
    for key, value in {**DEFAULTS, **(settings or {})}.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    return made
