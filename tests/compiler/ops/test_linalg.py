"""Products that are put together from ops, FLOP counts, and the texts of errors."""

import numpy as np
import pytest
from kerasoft.compiler.errors import ShapeError
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import symbol
from kerasoft.compiler.ops import convolution, linalg
from kerasoft.compiler.ops.registry import REGISTRY, input_node

b = symbol("b")
rng = np.random.default_rng(0)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (3,)), ((2, 3), (4, 3, 5)), ((2, 4, 3), (3,)), ((), (2,))])
def test_dot_is_numpys(shapes):
    x, y = (rng.normal(size=s).astype(np.float32) for s in shapes)
    np.testing.assert_allclose(linalg.dot(x, y), np.dot(x, y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", [0, 1, 2, ((0,), (2,)), ((0, 1), (2, 1))])
def test_tensordot_is_numpys(axes):
    x = rng.normal(size=(2, 3, 2)).astype(np.float32)
    y = rng.normal(size=(3, 2, 3) if axes == 2 else (2, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(linalg.tensordot(x, y, axes), np.tensordot(x, y, axes), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [None, 1, 2, 3, np.inf, -np.inf, 0])
def test_norm_is_numpys(order):
    x = rng.normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(linalg.norm(x, order, axis=1), np.linalg.norm(x, order, axis=1), rtol=1e-5)
    np.testing.assert_allclose(linalg.norm(x, "fro", axis=(0, 1)), np.linalg.norm(x), rtol=1e-5)


def test_flops_of_one_row():
    x, k = input_node("x", (b, 8, 8, 3), "float32"), input_node("k", (3, 3, 3, 16), "float32")
    y = convolution.conv(x, k, padding="same")
    count = lambda n: n.op.flops([i.type for i in n.inputs], n.attrs, n.type)
    assert count(y) == 2 * 8 * 8 * 16 * 27
    dx, dk = gradient({y: y}, [x, k])
    assert count(dx) == count(dk) == count(y)
    rows, kernel = input_node("r", (b, 10), "float32"), input_node("w", (10, 4), "float32")
    assert count(rows @ kernel) == 80
    assert count(linalg.einsum("bi,ij->bj", rows, kernel)) == 80


def test_every_op_has_a_line_of_documentation():
    leaves = {"input", "param", "constant", "item", "trial_root"}
    ours = {name: o for name, o in REGISTRY.items() if o.home.startswith("kerasoft.compiler")}
    assert [name for name, o in ours.items() if name not in leaves and not (o.__doc__ or "").strip()] == []


def test_errors_say_what_fits():
    x = input_node("x", (b, 3), "float32")
    with pytest.raises(ShapeError, match=r"float32\[b, 3\] by float32\[4, 5\]: the last axis of the first has 3 cells"):
        x @ np.ones((4, 5), np.float32)
    with pytest.raises(ShapeError, match="matmul takes no scalars; use multiply"):
        x @ np.float32(2)
    with pytest.raises(ShapeError, match="einsum 'ab,bc->ac' names 2 operands, got 1"):
        linalg.einsum("ab,bc->ac", x)
    with pytest.raises(ShapeError, match="the term 'abc' does not fit the shape"):
        linalg.einsum("abc->a", x)
    with pytest.raises(ShapeError, match="norm over two axes knows only"):
        linalg.norm(x, "nuc", axis=(0, 1))
