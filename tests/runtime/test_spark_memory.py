"""A data set four times a worker's data cap trains from mapped files: bounded memory on the executor, the same bits."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.spark, pytest.mark.soak]  # `test_spark.py` has a smaller one
MB = 1 << 20

SCRIPT = """
import json, sys
import numpy as np
from pyspark.sql import SparkSession
from kerasoft.data.blocks import persisted
from kerasoft.runtime import AllReduce
from kerasoft.runtime.spark import train
from tests.runtime.cases import Recorder, digest, job_of, mlp

FEATURES, ROWS, BLOCKS = 4000, 256, 64  # blocks of 4 MB, 256 MB in all
builder = SparkSession.builder
for pair in sys.argv[1:]:
    key, value = pair.split("=", 1)
    builder = builder.config(key, value)
spark = builder.getOrCreate()

def block(i):
    x = np.random.default_rng(i).normal(size=(ROWS, FEATURES)).astype("float32")
    return {"x/0": x, "y/0": x.sum(1, keepdims=True)}

def run(number, cap):
    records = spark.sparkContext.parallelize(range(number), 4).mapPartitionsWithIndex(
        lambda shard, part: ((shard, i, block(i)) for i in part)
    )
    data, hooks = persisted(records), Recorder()
    job = job_of(mlp(features=FEATURES), batch_size=1024, epochs=2, learning_rate=1e-4)
    result = train(job, data, None, AllReduce(workers=1, deterministic=True, memory_cap_bytes=cap), hooks)
    data.unpersist()
    peak = next(e for e in hooks.events if e.kind == "memory").details["bytes"][0]
    return digest(result), peak, sum(data.table.bytes)

try:
    found = [run(4, None), run(BLOCKS, 64 << 20), run(BLOCKS, None)]
    print("FOUND", json.dumps(found))
finally:
    spark.stop()
"""


def test_mapped_rows_keep_the_executor_small(cluster, tmp_path):
    (tmp_path / "larger.py").write_text(SCRIPT)
    settings = [f"{key}={value}" for key, value in cluster.settings(executors=1).items()]
    out = subprocess.run(
        [sys.executable, "larger.py", *settings], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable},
    )  # fmt: skip
    line = next((line for line in out.stdout.splitlines() if line.startswith("FOUND")), None)
    assert line, out.stderr[-3000:]
    (_, little, _), (mapped_digest, mapped, data_bytes), (digest, loaded, _) = json.loads(line[6:])
    assert data_bytes > 250 * MB
    assert mapped_digest == digest
    assert mapped - little < 130 * MB  # the cap of 64 MB, and buffers
    assert loaded - little > 230 * MB  # without a cap all rows are there
