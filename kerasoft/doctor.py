"""`python -m kerasoft.doctor --master spark://host:7077`: can this cluster train, and if not, what to do.

Runs what every `fit` on Spark checks first: Java, slots against workers, dynamic allocation, versions on every
executor, and memory. Exit status 0 when all holds, 1 when something fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kerasoft.doctor", description=__doc__.split("\n")[0])
    parser.add_argument("--master", default="local[2]", help="Spark master URL (default: local[2])")
    parser.add_argument("--workers", type=int, default=None, help="ranks to train with (default: one per executor)")
    parser.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="Spark setting, repeatable")
    parser.add_argument("--params", type=int, default=None, help="parameters of the model, to estimate memory")
    parser.add_argument(
        "--slots", type=int, default=2, help="vectors of the optimiser: SGD 0, momentum 1, Adam 2 (default)"
    )
    parser.add_argument("--data-bytes", type=int, default=0, help="size of the data as arrays, to estimate memory")
    parser.add_argument("--shuffle", action="store_true", help="check for ShuffleAllReduce (no barrier stages)")
    options = parser.parse_args(arguments)

    from kerasoft.runtime.java import JavaError, require_java

    try:
        print(f"ok       Java {require_java()}")
    except JavaError as error:
        print(f"FAILED   {error}")
        return 1
    from kerasoft.runtime.preflight import MemoryNeed
    from kerasoft.runtime.spark_session import session

    settings = dict(item.split("=", 1) for item in options.conf)
    need = None
    if options.params is not None:
        need = MemoryNeed(options.params, options.params, options.slots, options.data_bytes, 0)
    spark = session("kerasoft doctor", options.master, settings)
    try:
        from kerasoft.runtime.spark_preflight import preflight
        from kerasoft.runtime.strategies.strategy import limits_of

        report = preflight(spark.sparkContext, limits_of(options.workers), need, barrier=not options.shuffle)
    finally:
        spark.stop()
    print(report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
