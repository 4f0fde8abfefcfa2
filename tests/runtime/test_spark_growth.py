"""Fifty epochs on executor processes: their memory does not grow."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest
from kerasoft.runtime import AllReduce

from tests.runtime.cases import Recorder, mlp, shards
from tests.runtime.test_spark import fit

pytestmark = [pytest.mark.spark, pytest.mark.soak]
MB = 1 << 20


def parent(pid: int) -> int:
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_ours(pid: int) -> bool:
    """Whether this process is an ancestor."""
    while pid > 1 and pid != os.getpid():
        pid = parent(pid)
    return pid > 1


def worker_bytes() -> int:
    """Resident memory of this cluster's Python workers that have JAX loaded."""
    total = 0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            of_spark = b"pyspark" in (folder / "cmdline").read_bytes()
            if of_spark and is_ours(int(folder.name)) and "jaxlib" in (folder / "maps").read_text():
                total += int((folder / "statm").read_text().split()[1]) * 4096
        except OSError:  # it has ended
            continue
    return total


@pytest.mark.parametrize(
    "strategy",
    [
        AllReduce(workers=2),
        AllReduce(workers=2, buckets=2),
        AllReduce(workers=2, deterministic=True, topology="ring"),
    ],
    ids=["direct", "buckets", "ring"],
)
def test_fifty_epochs_do_not_grow(context, strategy):
    source, data = mlp(features=200, units=1000, dropout=True), shards((1500, 700, 1800), features=200)
    hooks = Recorder()
    seen = []

    def end(_):
        seen.append(worker_bytes())

    hooks.decide = end
    every = dataclasses.replace(strategy, checkpoint_every_s=0.5, timeout_s=60)
    fit(context, source, data, every, hooks=hooks, epochs=50, batch_size=64)
    assert len(seen) == 50
    early, late = np.median(seen[4:10]), np.median(seen[-6:])
    print(f"\n{early / MB:.0f} MB after epochs 5 to 10, {late / MB:.0f} MB after 45 to 50: {late / early - 1:+.2%}")
    assert early > 200 * MB
    assert late < 1.05 * early
