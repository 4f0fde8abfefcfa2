"""Training and inference of eight models: kerasoft, Keras 3 on JAX and PyTorch, through their public interfaces.

    python tests/benchmarks/workloads.py
    python tests/benchmarks/workloads.py --workloads mlp lenet --modes predict --subjects kerasoft keras --rounds 3
    python tests/benchmarks/workloads.py --workloads mlp --modes fit --profile

NumPy arrays in, `fit` and `predict`; each subject in a process of its own with its default settings (PyTorch: the faster
of eager and compiled, channels_last, inference mode, SparseAdam for NeuMF; `torch-dense` is NeuMF with Adam for all).
Subjects run in turns, the others waiting; the best round counts. Trace and compilation are reported apart, as the time of
the first step. Prints a Markdown table: examples a second, and ratios of the first subject to the others.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from workload_models import WORKLOADS

SUBJECT = pathlib.Path(__file__).with_name("workload_subject.py")


class Process:
    """A subject in its own process."""

    def __init__(self, name: str, workload: str, mode: str):
        reads, writes = os.pipe()
        command = [sys.executable, str(SUBJECT), name, workload, mode, str(writes)]
        quiet = {"stdout": subprocess.DEVNULL}  # answers come through a pipe of their own
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, pass_fds=[writes], **quiet)
        os.close(writes)
        self._answers = os.fdopen(reads)
        self.first = self._answer()

    def round(self, seconds: float) -> float:
        """Examples a second."""
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        answer = self._answer()
        return answer["examples"] / answer["seconds"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self._process.args))} ended with {self._process.wait()}")
        return json.loads(line)


def measure(workload: str, mode: str, subjects: list[str], rounds: int, seconds: float) -> list[tuple[float, float]]:
    """For each subject examples a second, best of rounds, and the first step's seconds."""
    processes = [Process(name, workload, mode) for name in subjects]
    best = [0.0] * len(subjects)
    for _ in range(rounds):
        for i, process in enumerate(processes):
            best[i] = max(best[i], process.round(seconds))
    for process in processes:
        process.close()
    return [(rate, process.first["first_s"]) for rate, process in zip(best, processes)]


def written(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 200 else f"{rate:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME")
    parser.add_argument("--modes", nargs="+", choices=("fit", "predict"), default=["fit", "predict"])
    parser.add_argument(
        "--subjects", nargs="+", default=["kerasoft", "keras", "torch"],
        choices=("kerasoft", "keras", "torch", "torch-eager", "torch-compiled", "torch-dense"),
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round")
    parser.add_argument("--no-header", action="store_true", help="only the rows, to be added to a table")
    parser.add_argument("--profile", action="store_true", help="where kerasoft's time goes, instead of the table")
    options = parser.parse_args()
    if options.profile:
        from workload_profile import profile

        for workload in options.workloads:
            for mode in options.modes:
                profile(workload, mode, options.seconds)
        return
    ours, *peers = options.subjects
    if not options.no_header:
        columns = [
            "workload (batch)",
            "mode",
            *options.subjects,
            *(f"{ours} / {p}" for p in peers),
            "first step, s",
            "load",
        ]
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for workload in options.workloads:
        for mode in options.modes:
            load = os.getloadavg()[0]
            found = measure(workload, mode, options.subjects, options.rounds, options.seconds)
            rates = [rate for rate, _ in found]
            cells = [WORKLOADS[workload].title, mode, *map(written, rates), *(f"{rates[0] / r:.2f}" for r in rates[1:])]
            cells += [" / ".join(f"{first:.1f}" for _, first in found), f"{load:.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
