"""The number of threads, not of cores, decides the bits; slices of an update give the bits of the whole."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from kerasoft.compiler import program as kp
from kerasoft.compiler.errors import ProgramError
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import activations, convolution, linalg, shape
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops.registry import constant, input_node, param_node

ROOT = pathlib.Path(kp.__file__).parents[1]
ROWS = 64

RUN = """
import hashlib, os, sys
import numpy as np
if sys.argv[2] == "one core":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from kerasoft.compiler.program import StepArgs, StepProgram, pin_threads, threads
pin_threads(2)
program = StepProgram.from_bytes(open(sys.argv[1], "rb").read())
random = np.random.default_rng(0)
batch = {"x/0": random.normal(size=(64, 16, 16, 8)).astype("f")}
params = random.normal(size=program.layout.P).astype("f")
out = np.asarray(program.train(64).whole(StepArgs(params, np.zeros(0, "f"), batch)))
assert np.isfinite(out).all()
print(threads(), len(os.sched_getaffinity(0)), hashlib.sha256(out.tobytes()).hexdigest())
"""


def step():
    """A convolution and a product whose gradients are long sums."""
    x = input_node("x/0", (symbol("b"), 16, 16, 8), "float32")
    params = [param_node("kernel", (3, 3, 8, 16)), param_node("head", (16 * 16 * 16, 4))]
    h = activations.relu(convolution.conv(x, params[0], padding="same"))
    y = linalg.matmul(shape.reshape(h, shape=(-1, 16 * 16 * 16)), params[1])
    loss = shape.sum(a.sin(y))
    names = [p.attrs["name"] for p in params]
    train = Graph((x,), (*gradient({loss: constant(1.0)}, params), loss), (*(f"grad/{n}" for n in names), "sum/loss"))
    layout = kp.Layout.of(params={p.attrs["name"]: p.shape for p in params}, sums={"loss": ()})
    return kp.StepSource(layout, train=train)


def test_two_threads_on_one_core_and_on_all_give_the_same_bits(tmp_path):
    path = tmp_path / "program"
    path.write_bytes(step().export((ROWS,)).to_bytes())
    env = {k: v for k, v in os.environ.items() if k != "NPROC"} | {"PYTHONPATH": str(ROOT)}
    runs = []
    for cores in ("one core", "all cores"):
        command = [sys.executable, "-W", "error", "-c", RUN, str(path), cores]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        runs.append(done.stdout.split())
    assert runs[0][:2] == ["2", "1"] and runs[1][0] == "2"
    assert runs[0][2] == runs[1][2]


def test_threads_cannot_change_once_jax_has_started(monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    np.asarray(constant(1.0).op.lower(value=constant(1.0).attrs["value"]))  # starts JAX
    assert kp.threads() == len(os.sched_getaffinity(0))
    with pytest.raises(ProgramError) as caught:
        kp.pin_threads(3)
    assert str(caught.value) == (
        "JAX has started with as many threads as cores; pin_threads(3) comes too late: call it before the first computation"
    )
    with pytest.raises(ProgramError, match="at least one thread is needed, got 0"):
        kp.pin_threads(0)
    monkeypatch.setenv("NPROC", "5")
    kp.pin_threads(5)
    assert kp.threads() == 5


def test_an_update_in_slices_gives_the_bits_of_the_whole():
    n = symbol("n")
    p, g, m, v = (input_node(name, (n,), "float32") for name in ("param", "gradient", "slot/m", "slot/v"))
    rate, iteration = input_node("learning_rate", (), "float32"), input_node("iteration", (), "int32")
    t = shape.cast(iteration, "float32") + 1.0
    m2, v2 = m + (g - m) * 0.1, v + (a.square(g) - v) * 0.001
    alpha = rate * a.sqrt(1.0 - a.power(0.999, t)) / (1.0 - a.power(0.9, t))
    new = p - m2 * alpha / (a.sqrt(v2) + 1e-7) - rate * 0.01 * p
    update = Graph((p, g, m, v, rate, iteration), (new, m2, v2), ("param", "slot/m", "slot/v"))
    slots = (kp.SlotSpec("m"), kp.SlotSpec("v"))
    program = kp.StepSource(kp.Layout.of(params={"k": (1000,)}), update=update, slots=slots).export()
    vectors = np.abs(np.random.default_rng(0).normal(size=(4, 1000))).astype("f")

    def run(part):
        p, g, m, v = (x[part] for x in vectors)
        return program.update(len(p)).whole(kp.UpdateArgs(p, g, (m, v), learning_rate=1e-3, iteration=6))

    whole = [np.asarray(x) for x in run(slice(None))]
    for size in (1, 37, 64, 448, 999):
        for start in (0, 1000 - size):
            for got, want in zip(run(slice(start, start + size)), whole):
                np.testing.assert_array_equal(got, want[start : start + size])
