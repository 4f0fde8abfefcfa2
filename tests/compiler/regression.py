"""A two-layer regression with an optimiser that has a slot, and its step by `jax.grad`: what tests of programs share."""

import jax
import numpy as np
from kerasoft.compiler import program as kp
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.objective import Objective
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import linalg
from kerasoft.compiler.ops import shape as s
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.registry import constant, input_node, param_node

B = symbol("b")
N = symbol("n")


def regression(synchronised=False, late=False, factor=0.5):
    """y = (x - mean) @ k + c; the mean is over the batch, or over the global batch. `late`: train is an `Objective`."""
    x, y = input_node("x/0", (B, 3), "float32"), input_node("y/0", (B, 2), "float32")
    valid, rows, share = (
        input_node("valid", (B,), "float32"),
        input_node("rows", (), "float32"),
        input_node("share", (), "float32"),
    )
    k, c = param_node("k", (3, 2)), param_node("c", (2,))
    moving, still = param_node("moving", (3,), trainable=False), param_node("still", (2,), trainable=False)
    v = s.reshape(valid, shape=(B, 1))
    total = s.sum(a.multiply(x, v), axis=0)
    mean = a.multiply(all_reduce(total) if synchronised else total, a.divide(1.0, rows))
    predicted = linalg.matmul(a.subtract(x, mean), k) + c
    error = a.multiply(a.subtract(predicted, y), v)
    loss = s.sum(error * error) * a.divide(1.0, rows)
    given = {
        "state/moving": a.multiply(share, moving * factor + mean * 0.5),
        "sum/loss/total": loss * rows,
        "sum/loss/count": s.sum(valid),
    }
    train = Objective(Graph((x, y, valid, rows, share), tuple(given.values()), tuple(given)), loss, {"k": k, "c": c})
    if not late:
        dk, dc = gradient({loss: constant(1.0)}, [k, c])
        train = Graph((x, y, valid, rows, share), (dk, dc, *given.values()), ("grad/k", "grad/c", *given))
    test = Graph((x, y, valid, rows), (loss * rows,), ("sum/loss/total",))
    predict = Graph((x,), (linalg.matmul(a.subtract(x, moving), k) + c + still,), ("out/0",))
    p, g, m = (input_node(n, (N,), "float32") for n in ("param", "gradient", "slot/momentum"))
    rate = input_node("learning_rate", (), "float32")
    moved = m * 0.9 + g
    update = Graph((p, g, m, rate), (a.subtract(p, moved * rate), moved), ("param", "slot/momentum"))
    return kp.StepSource(
        layout=kp.Layout.of(
            params={"k": (3, 2), "c": (2,)}, states={"moving": (3,), "still": (2,)},
            sums={"loss/total": (), "loss/count": ()},
        ),
        inputs=(kp.InputSpec("x/0", (3,), "float32"), kp.InputSpec("y/0", (2,), "float32")),
        outputs=("out/0",), train=train, test=test, predict=predict, update=update,
        slots=(kp.SlotSpec("momentum"),),
    )  # fmt: skip


def arrays(rows=4):
    r = np.random.default_rng(0)
    batch = {"x/0": r.normal(size=(rows, 3)).astype("f"), "y/0": r.normal(size=(rows, 2)).astype("f")}
    return r.normal(size=8).astype("f"), np.array([1, 2, 3, 4, 5], "f"), batch


def expected(params, state, batch, rows):
    """The same step by jax.grad."""

    def loss(p):
        x, y = batch["x/0"], batch["y/0"]
        mean = x.sum(0) / rows
        return (((x - mean) @ p[:6].reshape(3, 2) + p[6:] - y) ** 2).sum() / rows

    mean = batch["x/0"].sum(0) / rows
    states = [*(state[:3] * 0.5 + mean * 0.5), *state[3:]]
    return np.concatenate([jax.grad(loss)(params), states, [loss(params) * rows, rows]])
