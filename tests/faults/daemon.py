"""Spark's Python daemon that has imported JAX and the runtime before it forks workers: a case starts dozens of them.

Nothing is computed before a fork: JAX makes its threads when it is first used. A worker that gets SIGUSR1 writes the stacks of
its threads to its standard error, which is the executor's.
"""

import faulthandler
import signal

import jax  # noqa: F401
import kerasoft.compiler.program  # noqa: F401
import kerasoft.runtime.averaging  # noqa: F401
import kerasoft.runtime.by_rows  # noqa: F401
import kerasoft.runtime.collectives  # noqa: F401
import kerasoft.runtime.rank  # noqa: F401
import kerasoft.runtime.servers.trainer  # noqa: F401
import kerasoft.runtime.shuffle_tasks  # noqa: F401
from pyspark.daemon import manager

if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    manager()
