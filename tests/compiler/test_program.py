"""StepSource, LocalStep and StepProgram on a two-layer regression with an optimiser that has a slot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kerasoft.compiler import program as kp
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import shape as s
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.registry import REGISTRY, constant, input_node, op, param_node

B = symbol("b")
N = symbol("n")


def test_op(name, **kw):
    return REGISTRY.get(name) or op(name, **kw)


matmul = test_op(
    "test_matmul", lower=jnp.matmul, gradient=lambda n, dy: (matmul_nt(dy, n.inputs[1]), matmul_tn(n.inputs[0], dy))
)
matmul_nt = test_op("test_matmul_nt", lower=lambda x, y: x @ y.T)
matmul_tn = test_op("test_matmul_tn", lower=lambda x, y: x.T @ y)
reciprocal = test_op("test_reciprocal", lower=lambda x: 1.0 / x)
test_op.__test__ = False


def regression(synchronised=False):
    """y = (x - mean) @ k + c; the mean is over the batch, or over the global batch."""
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
    mean = a.multiply(all_reduce(total) if synchronised else total, reciprocal(rows))
    predicted = matmul(a.subtract(x, mean), k) + c
    error = a.multiply(a.subtract(predicted, y), v)
    loss = s.sum(error * error) * reciprocal(rows)
    dk, dc = gradient({loss: constant(1.0)}, [k, c])
    train = Graph(
        (x, y, valid, rows, share),
        (dk, dc, a.multiply(share, moving * 0.5 + mean * 0.5), loss * rows, s.sum(valid)),
        ("grad/k", "grad/c", "state/moving", "sum/loss/total", "sum/loss/count"),
    )
    test = Graph((x, y, valid, rows), (loss * rows,), ("sum/loss/total",))
    predict = Graph((x,), (matmul(a.subtract(x, moving), k) + c + still,), ("out/0",))
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


def test_local_train_is_gradient_and_update_in_one():
    params, state, batch = arrays()
    step = regression().local()
    slots = (np.ones(8, "f"),)
    p, st, sl, sums = step.train(params, state, slots, batch, np.ones(4, "f"), None, None, 4, 0, 0.1)
    want = expected(params, state, batch, 4)
    np.testing.assert_allclose(sl[0], 0.9 + want[:8], rtol=1e-5)
    np.testing.assert_allclose(p, params - 0.1 * (0.9 + want[:8]), rtol=1e-5)
    np.testing.assert_allclose(st, want[8:13], rtol=1e-5)
    np.testing.assert_allclose(sums, want[13:], rtol=1e-5)
    np.testing.assert_allclose(step.test(params, state, batch, np.ones(4, "f"), 4), [want[13], 0], rtol=1e-5)
    (out,) = step.predict(params, state, batch)
    np.testing.assert_allclose(
        out, (batch["x/0"] - state[:3]) @ params[:6].reshape(3, 2) + params[6:] + state[3:], rtol=1e-5
    )


@pytest.mark.parametrize("synchronised", [False, True])
def test_program_equals_local_and_travels_as_bytes(synchronised):
    source = regression(synchronised)
    program = kp.StepProgram.from_bytes(source.export((4,), (4,), (4,)).to_bytes())
    params, state, batch = arrays()
    args = kp.StepArgs(params, state, batch, valid=np.ones(4, "f"), rows=4, share=1)
    call = program.train(4)
    assert call.stages == 1 + synchronised
    np.testing.assert_allclose(call.whole(args), expected(params, state, batch, 4), rtol=1e-5)
    np.testing.assert_allclose(
        program.predict(4).whole(args)[0], source.local().predict(params, state, batch)[0], rtol=1e-6
    )
    assert program.test(4).whole(args).shape == (2,)
    for n in (8, 3, 1):
        update = kp.UpdateArgs(params[:n], np.ones(n, "f"), (np.ones(n, "f"),), learning_rate=0.1)
        new, moved = program.update(n).whole(update)
        np.testing.assert_allclose(new, params[:n] - 0.19, rtol=1e-5)
        np.testing.assert_allclose(moved, 1.9, rtol=1e-6)


def test_replicas_with_padding_and_sums_equal_one_whole_batch():
    program = regression(synchronised=True).export((4,))
    params, state, batch = arrays(6)
    call, parts = program.train(4), []
    for rows in (slice(0, 4), slice(4, 6)):
        real = rows.stop - rows.start
        padded = {n: np.concatenate([v[rows], np.zeros((4 - real, *v.shape[1:]), "f")]) for n, v in batch.items()}
        valid = (np.arange(4) < real).astype("f")
        parts.append(kp.StepArgs(params, state, padded, valid=valid, rows=6, share=real / 6))
    firsts = [call.run(0, args) for args in parts]
    carries, total = [c for c, _ in firsts], sum(np.asarray(v) for _, v in firsts)
    for k in range(1, call.stages):
        outs = [call.run(k, args, c, total) for args, c in zip(parts, carries)]
        carries, total = [c for c, _ in outs], sum(np.asarray(v) for _, v in outs)
    np.testing.assert_allclose(total, expected(params, state, batch, 6), rtol=2e-5, atol=1e-6)
