"""A model, and a table, that do not fit into one worker's memory train on two; the limit is the system's (RLIMIT_AS)."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.spark, pytest.mark.soak]

SCRIPT = """
import json, sys
import numpy as np
from pyspark.sql import SparkSession
import kerasoft as ks
from kerasoft.runtime import AllReduce, Parallel

L = ks.layers
USERS = ITEMS = 400_000
builder = SparkSession.builder
for pair in sys.argv[2:]:
    key, value = pair.split("=", 1)
    builder = builder.config(key, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("OFF")
rng = np.random.default_rng(0)

def mlp():  # 50 M parameters
    model = ks.Sequential([ks.Input((64,)), L.Dense(5000, "tanh"), L.Dense(5000, "tanh"), L.Dense(5000, "tanh"), L.Dense(2)])
    return model, rng.normal(size=(64, 64)).astype("float32")

def ncf():  # 51 M parameters in two tables
    pair = ks.Input((2,), dtype="int32")
    user, item = L.Embedding(USERS, 64)(pair[:, 0]), L.Embedding(ITEMS, 64)(pair[:, 1])
    tower = L.Dense(64, "relu")(L.Concatenate()([user, item]))
    x = np.stack([rng.integers(0, USERS, 64), rng.integers(0, ITEMS, 64)], 1).astype("int32")
    return ks.Model(pair, L.Dense(2)(L.Concatenate()([user * item, tower]))), x

make, two = {"mlp": (mlp, "Parallel(pipeline=2)"), "ncf": (ncf, "Parallel(model=2)")}[sys.argv[1]]
found = {}
for text in ("AllReduce(1, retries=0)", two):
    ks.utils.set_random_seed(1)
    model, x = make()
    model.compile(ks.optimizers.Adam(1e-4), ks.losses.SparseCategoricalCrossentropy(from_logits=True))
    y = (x.sum(1) > np.median(x.sum(1))).astype("int32")
    rows = spark.sparkContext.parallelize(list(zip(x, y.tolist())), 2)
    try:
        history = model.fit(rows, batch_size=32, epochs=2, verbose=0, strategy=eval(text))
        peaks = next(e for e in model.last_fit_events if e.kind == "memory").details["bytes"]
        found[text] = {"loss": history.history["loss"], "peaks": list(map(int, peaks))}
    except Exception as error:
        found[text] = {"error": type(error).__name__, "text": str(error)[:600]}
    print(text, found[text], flush=True)
print("FOUND", json.dumps(found))
spark.stop()
"""


@pytest.mark.parametrize(
    "name, limit", [("mlp", "3800m"), ("ncf", "3500m")]
)  # of address space, JAX's own 1.5 GB in it
def test_what_one_worker_cannot_hold_trains_on_two(cluster, tmp_path, name, limit):
    """One worker's process meets the limit, and says so; the parts of two train."""
    (tmp_path / "larger.py").write_text(SCRIPT)
    limits = {"spark.executor.pyspark.memory": limit, "spark.python.worker.reuse": "false"}
    settings = [f"{key}={value}" for key, value in (cluster.settings(executors=2) | limits).items()]
    out = subprocess.run(
        [sys.executable, "larger.py", name, *settings], cwd=tmp_path, capture_output=True, text=True, timeout=400,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable},
    )  # fmt: skip
    line = next((line for line in out.stdout.splitlines() if line.startswith("FOUND")), None)
    assert line, out.stderr[-3000:]
    print(line)
    one, two = json.loads(line[6:]).values()
    assert "emory" in one.get("text", ""), one
    assert two["loss"][1] < two["loss"][0], two
