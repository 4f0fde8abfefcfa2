"""x[...] of nodes against NumPy, and the texts of its errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasoft.compiler.errors import ShapeError
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import indexing, shape
from kerasoft.compiler.ops.registry import input_node

b = symbol("b")
X = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)


def _picked(key, dims):
    """x[key] of a node, and where its gradient is 1."""
    x = input_node("x", dims, "float32")
    y = x[key]
    (dx,) = gradient({y: shape.ones_like(y)}, [x]) if y is not x else (shape.ones_like(x),)
    return function(Graph((x,), (y, dx), ("y", "dx")))(X)


def _check(key, dims):
    y, dx = _picked(key, dims)
    np.testing.assert_array_equal(y, X[key])
    want = np.zeros_like(X)
    np.add.at(want, key, 1)
    np.testing.assert_array_equal(dx, want)


_slices = st.builds(
    slice,
    st.none() | st.integers(-6, 6),
    st.none() | st.integers(-6, 6),
    st.none() | st.sampled_from([1, 2, 3, -1, -2]),
)
_keys = st.lists(st.integers(-3, 2) | _slices, max_size=3)


@settings(max_examples=60, deadline=None)
@given(_keys, st.sampled_from([None, "new", "dots"]), st.integers(0, 3))
def test_any_basic_key_of_known_sizes(keys, extra, at):
    keys = list(keys)
    if extra is not None:
        keys.insert(at, None if extra == "new" else Ellipsis)
    _check(tuple(keys), (3, 4, 5))


@pytest.mark.parametrize(
    "key",
    [
        np.s_[1:],
        np.s_[:-1],
        np.s_[-2:],
        np.s_[:2],
        np.s_[:100],
        np.s_[::-1],
        np.s_[0],
        np.s_[-1],
        np.s_[:, 1:3, ::2],
        np.s_[..., None, 2],
        np.s_[None, 1:, -1],
    ],
)
def test_basic_keys_of_an_unknown_size(key):
    _check(key, (b, 4, 5))


@pytest.mark.parametrize(
    "key",
    [
        (np.array([2, 0, 2]),),
        (slice(None), np.array([[1, 3]])),
        (slice(1, None), np.array([3, -1]), 2),
        (np.array([0, 1, 1]), np.array([3, 0, 0])),
    ],
)
def test_arrays_as_keys(key):
    _check(key, (3, 4, 5))


def test_a_node_as_key():
    x, k = input_node("x", (b, 4, 5), "float32"), input_node("k", (b,), "int32")
    y = x[:, k]
    assert str(y.type) == "float32[b, b, 5]"
    ids = np.array([3, 0, 1], np.int32)
    np.testing.assert_array_equal(function(Graph((x, k), (y,), ("y",)))(X, ids)[0], X[:, ids])


def test_iteration_and_unpacking():
    first, second = input_node("x", (2, 3), "float32")
    assert str(first.type) == "float32[3]" and second is not first
    with pytest.raises(TypeError, match=r"cannot iterate over the first axis of a symbolic float32\[b, 3\]"):
        list(input_node("x", (b, 3), "float32"))


def test_errors_say_which_axis():
    x = input_node("x", (b, 4), "float32")
    with pytest.raises(ShapeError, match=r"index 4 is outside axis 1 of float32\[b, 4\]"):
        x[0, 4]
    with pytest.raises(ShapeError, match=r"too many indices for float32\[b, 4\]: 3"):
        x[0, 0, 0]
    with pytest.raises(ShapeError, match=r"cannot be indexed by a mask.*use where"):
        x[x > 0]
    with pytest.raises(ShapeError, match=r"backward slice with bounds needs a known size, got an axis of size b"):
        x[2::-1]


def test_lookup_outside_the_table_is_nan_not_a_wrong_row():
    table = np.ones((3, 2), np.float32)
    assert np.isnan(indexing.embedding_lookup(table, np.array([3]))).all()
    assert not np.isnan(indexing.embedding_lookup(table, np.array([2, -1]))).any()
