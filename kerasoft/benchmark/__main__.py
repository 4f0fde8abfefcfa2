"""`python -m kerasoft.benchmark kernels`: which kernels win where on this machine, in about a minute."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kerasoft.benchmark", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    kernels = commands.add_parser("kernels", help="time every kernel of every op on typical shapes")
    kernels.add_argument("--only", default="", metavar="TEXT", help="groups whose name holds TEXT, e.g. convolution")
    kernels.add_argument("--save", action="store_true", help="let the compiler use these times for these shapes")
    kernels.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)

    from . import kernels as benchmark

    return benchmark.run(options.only, options.save, options.json)


if __name__ == "__main__":
    sys.exit(main())
