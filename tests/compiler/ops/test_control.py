"""scan, cond, while_loop and raw JAX functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kerasoft.compiler.errors import GradientError, ShapeError
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import arithmetic, control, shape
from kerasoft.compiler.ops.registry import constant, input_node, param_node

b, t = symbol("b"), symbol("t")


def _run(inputs, outputs, *arrays):
    names = tuple(map(str, range(len(outputs))))
    return function(Graph(tuple(inputs), tuple(outputs), names), inputs)(*arrays)


def test_scan_reads_weights_from_outside():
    w, x = param_node("w", (2, 2)), input_node("x", (t, b, 2), "float32")
    start = shape.zeros_like(x[0])
    (last,), (ys,) = control.scan(lambda c, xs: ([arithmetic.tanh(xs[0] @ w + c[0])], [c[0] * 2.0]), [start], [x])
    assert (str(last.type), str(ys.type)) == ("float32[b, 2]", "float32[t, b, 2]")
    loss = shape.sum(last) + shape.sum(arithmetic.square(ys))
    grads = gradient({loss: shape.ones_like(loss)}, [w, x])
    rng = np.random.default_rng(0)
    weight, values = rng.normal(size=(2, 2)).astype("f"), rng.normal(size=(4, 3, 2)).astype("f")

    def want(weight, values):
        c, total = jnp.zeros((3, 2)), 0
        for cell in values:
            total, c = total + jnp.sum((c * 2) ** 2), jnp.tanh(cell @ weight + c)
        return total + jnp.sum(c)

    value, *ours = _run([w, x], [loss, *grads], weight, values)
    np.testing.assert_allclose(value, want(weight, values), rtol=1e-5)
    for mine, theirs in zip(ours, jax.grad(want, argnums=(0, 1))(weight, values)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_scans_nest():
    x, w = input_node("x", (3, 2, b), "float32"), input_node("w", (b,), "float32")

    def inner(carry, cells):
        return [carry[0] + cells[0] * w], []

    def outer(carry, cells):
        (total,), _ = control.scan(inner, [carry[0] * 2.0], [cells[0]])
        return [total], [total]

    (last,), (ys,) = control.scan(outer, [w * 0.0], [x])
    given, scale = np.arange(18, dtype=np.float32).reshape(3, 2, 3), np.array([1, 2, 3], np.float32)
    c, want = np.zeros(3, np.float32), []
    for block in given:
        c = c * 2 + block.sum(0) * scale
        want.append(c)
    values = _run([x, w], [last, ys], given, scale)
    np.testing.assert_allclose(values[0], c)
    np.testing.assert_allclose(values[1], np.stack(want))


def test_scan_of_arrays_without_cells_and_backwards():
    (last,), (ys,) = control.scan(lambda c, xs: ([c[0] * 2], [c[0]]), [np.float32(1)], length=4)
    assert float(last) == 16 and ys.tolist() == [1, 2, 4, 8]
    (last,), (ys,) = control.scan(lambda c, xs: ([c[0] + xs[0]], [c[0]]), [0], [np.array([1, 2, 3])], reverse=True)
    assert int(last) == 6 and ys.tolist() == [5, 3, 0]


def test_scan_may_pass_a_value_straight_through():
    x = input_node("x", (b,), "float32")
    (last,), (ys,) = control.scan(lambda c, xs: (c, [constant(1.0)]), [x], length=2)
    value, ones = _run([x], [last, ys], np.ones(3, np.float32))
    assert value.tolist() == [1, 1, 1] and ones.tolist() == [1, 1]


def test_equal_scans_are_one_node():
    x = input_node("x", (3, b), "float32")
    make = lambda: control.scan(lambda c, xs: ([c[0] + xs[0]], []), [x[0]], [x])[0][0]
    assert make() is make()


def test_map_rows():
    x = input_node("x", (b, 4), "float32")
    y = control.map_rows(lambda row: shape.flip(row), x)
    given = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(_run([x], [y], given)[0], given[:, ::-1])


@pytest.mark.parametrize("holds", (True, False))
def test_cond_computes_and_differentiates_one_branch(holds):
    p, x, w = input_node("p", (), "bool"), input_node("x", (b,), "float32"), input_node("w", (), "float32")
    y = control.cond(p, lambda: x * w, lambda: x - 1.0)
    grads = gradient({y: shape.ones_like(y)}, [x, w])
    given = np.array([1, 2], np.float32)
    value, dx, dw = _run([p, x, w], [y, *grads], np.bool_(holds), given, np.float32(3))
    assert value.tolist() == ([3, 6] if holds else [0, 1])
    assert dx.tolist() == ([3, 3] if holds else [1, 1]) and float(dw) == (3 if holds else 0)


def test_cond_of_an_array_runs_python():
    assert control.cond(np.bool_(True), lambda: "yes", lambda: "no") == "yes"
    first, second = control.cond(input_node("p", (), "bool"), lambda: (constant(1.0), 2.0), lambda: (3.0, 4.0))
    assert str(first.type) == str(second.type) == "float32[]"


def test_while_loop():
    x = input_node("x", (b,), "float32")
    n, y = control.while_loop(lambda n, y: n < 5, lambda n, y: (n + 2, y * x), (np.int32(0), x))
    values = _run([x], [n, y], np.array([2, 3], np.float32))
    assert int(values[0]) == 6 and values[1].tolist() == [16, 81]
    assert [int(v) for v in control.while_loop(lambda n: n < 5, lambda n: (n + 2,), (0,))] == [6]
    with pytest.raises(GradientError, match="while_loop"):
        gradient({y: y}, [x])


def test_from_jax_works_on_nodes_and_arrays():
    swish = control.from_jax(lambda x: x * jax.nn.sigmoid(x))
    pair = control.from_jax(lambda x, y: (x @ y, jnp.sum(x)))
    x = input_node("x", (b, 3), "float32")
    y = swish(x)
    (dx,) = gradient({y: shape.ones_like(y)}, [x])
    given = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(_run([x], [dx], given)[0], jax.grad(lambda x: jnp.sum(jax.nn.silu(x)))(given), rtol=1e-6)
    np.testing.assert_allclose(swish(given), jax.nn.silu(given), rtol=1e-6)
    product, total = pair(x, np.ones((3, 2), np.float32))
    assert (str(product.type), str(total.type)) == ("float32[b, 2]", "float32[]")
    assert float(pair(given, given.T)[1]) == 6


def test_errors_name_the_carry_and_the_branches():
    x = input_node("x", (3, b), "float32")
    with pytest.raises(ShapeError, match=r"carry 0 of scan is float32\[b\] before a step and float32\[3, b\] after it"):
        control.scan(lambda c, xs: ([c[0] + x], []), [x[0]], [x])
    with pytest.raises(ShapeError, match=r"carry 1 of while_loop is float32\[b\] before and bool\[b\] after"):
        control.while_loop(lambda n, y: n < 5, lambda n, y: (n + 1, y > 0), (np.int32(0), x[0]))
    with pytest.raises(ShapeError, match=r"branches of cond give different types: \(float32\[b\]\) and \(bool\[b\]\)"):
        control.cond(x[0, 0] > 0, lambda: x[0], lambda: x[0] > 0)
    with pytest.raises(TypeError, match="use ops.where or ops.cond instead of `if`"):
        bool(x)
