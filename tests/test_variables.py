"""Variables and symbolic tensors against Keras: members, operators, conversions, texts of errors."""

import operator
import subprocess
import sys

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import kerasoft as ks

# Keras's own __array__ lacks the copy argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

A = np.array([[1.5, -2.0, 0.5], [3.0, 1.0, -1.0]], "float32")
B = np.array([2.0, 1.0, 3.0], "float32")
BINARY = "add sub mul truediv floordiv mod pow lt le gt ge eq ne".split()
LOGIC = "and_ or_ xor".split()


def same(got, want):
    assert np.asarray(got).dtype == np.asarray(want).dtype
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("other", [2, 2.5, B], ids=["int", "float", "array"])
def test_operators_of_a_variable(name, other):
    function = getattr(operator, name)
    same(function(ks.Variable(A), other), function(keras.Variable(A), other))
    if name != "pow" and not isinstance(other, np.ndarray):
        same(function(other, ks.Variable(A)), function(other, keras.Variable(A)))
    same(function(ks.Variable(A), ks.Variable(B)) if name not in ("eq", "ne") else function(ks.Variable(A), B),
         function(keras.Variable(A), keras.Variable(B)) if name not in ("eq", "ne") else function(keras.Variable(A), B))  # fmt: skip


@pytest.mark.parametrize("name", LOGIC)
def test_logic_of_variables(name):
    function = getattr(operator, name)
    for left, right in ((A > 0, B > 1), (A > 0, True)):
        same(function(ks.Variable(left), right), function(keras.Variable(left), right))


@pytest.mark.parametrize(
    "value", [A, np.array([1, -2], "int32"), np.array([True, False])], ids=["float", "int", "bool"]
)
def test_unary_operators_and_indexing(value):
    mine, theirs = ks.Variable(value), keras.Variable(value)
    if value.dtype != bool:
        for function in (operator.neg, abs, operator.pos):
            same(function(mine), function(theirs))
    if value.dtype != "float32":
        same(~mine, ~theirs)
    same(mine[0], theirs[0])
    same(mine[..., 1:], theirs[..., 1:])
    same(mine[np.asarray(value) > 0], theirs[np.asarray(value) > 0])
    assert len(list(mine)) == len(value)


def test_members():
    for module in (keras, ks):
        v = module.Variable(A, name="gain", aggregation="mean", trainable=False)
        assert (v.shape, v.ndim, v.dtype, v.name, v.path) == ((2, 3), 2, "float32", "gain", "gain")
        assert (v.aggregation, v.synchronization, v.trainable) == ("mean", "auto", False)
        assert (v.regularizer, v.constraint, v.overwrite_with_gradient) == (None, None, False)
        v.trainable = 1
        assert v.trainable is True
        same(v.assign_add(A), 2 * A)
        same(v.assign_sub(A), A)
        same(v.assign(B[None] * A), B * A)
        same(v.numpy(), B * A)
        same(np.asarray(v), B * A)
        same(jnp.sum(v.__jax_array__()), (B * A).sum())
        assert module.Variable(1.5).shape == ()
        assert (float(module.Variable(1.5)), int(module.Variable(3))) == (1.5, 3)
        assert module.Variable([1, 2]).dtype == "int32"
        assert module.Variable(np.zeros(2)).dtype == "float32"
        assert module.Variable("zeros", shape=(2, 1)).numpy().tolist() == [[0.0], [0.0]]


MISTAKES = [
    (lambda m: m.Variable(1.0, name="a/b"), ValueError, "cannot contain character `/`"),
    (lambda m: m.Variable(1.0, aggregation="all"), ValueError, "Invalid value for argument `aggregation`"),
    (lambda m: m.Variable(1.0, synchronization="never"), ValueError, "Invalid value for argument `synchronization`"),
    (lambda m: m.Variable("zeros"), ValueError, "the `shape` argument should be specified"),
    (lambda m: m.Variable(B).assign(A), ValueError, "The shape of the target variable"),
    (lambda m: int(m.Variable(B)), TypeError, "Only scalar arrays can be converted to Python scalars"),
    (lambda m: float(m.Variable(B)), TypeError, "Only scalar arrays can be converted to Python scalars"),
    (lambda m: bool(m.Variable(1.0)), TypeError, "cannot be used as a boolean"),
    (lambda m: setattr(m.Variable(B), "regularizer", 3), ValueError, "Invalid value for attribute `regularizer`"),
    (lambda m: setattr(m.Variable(B), "constraint", "max"), ValueError, "Invalid value for attribute `constraint`"),
    (lambda m: setattr(m.Variable(B), "overwrite_with_gradient", 1), TypeError, "must be a boolean"),
    (lambda m: bool(m.KerasTensor((2,))), TypeError, "A symbolic KerasTensor cannot be used as a boolean"),
    (lambda m: int(m.KerasTensor(())), ValueError, "cannot convert it to an int"),
    (lambda m: float(m.KerasTensor(())), ValueError, "cannot convert it to a float"),
    (lambda m: np.array(m.KerasTensor((2,))), ValueError, "symbolic"),
    (lambda m: list(m.KerasTensor((2,))), NotImplementedError, "Iterating over a symbolic KerasTensor"),
    (lambda m: m.KerasTensor((2,)).__jax_array__(), ValueError, "cannot be used as input to a JAX function"),
    (lambda m: setattr(m.KerasTensor((2,)), "shape", (3,)), AttributeError, "shape"),
    (lambda m: m.KerasTensor((2, -1)), ValueError, "Cannot convert '\\(2, -1\\)' to a shape"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_explained_as_by_keras(number):
    call, error, text = MISTAKES[number]
    for module in (keras, ks):
        with pytest.raises(error, match=text):
            call(module)


@pytest.mark.parametrize("name", [*BINARY[:-2], "ne", "matmul"])
def test_operators_of_symbolic_tensors(name):
    function = getattr(operator, name)
    for pair in (((None, 3, 3), (None, 3, 3)), ((None, 1, 3), (4, 3, 3))):
        results = [function(m.KerasTensor(pair[0]), m.KerasTensor(pair[1], "int32")) for m in (keras, ks)]
        assert results[1].shape == results[0].shape
        assert results[1].dtype == results[0].dtype
        assert type(results[1]._keras_history.operation).__name__ == type(results[0]._keras_history.operation).__name__


def test_methods_of_symbolic_tensors():
    for module in (keras, ks):
        x = module.KerasTensor((None, 4, 1), "int32", name="x")
        assert (x.ndim, x.sparse, x.ragged, x.ragged_rank, x.row_splits_dtype) == (3, False, False, None, None)
        assert x.reshape((-1, 2)).shape == (None, 2)
        assert x.squeeze(-1).shape == (None, 4)
        assert (~x).dtype == "bool"
        assert abs(x).shape == (-x).shape == (None, 4, 1)
        assert round(module.KerasTensor((2,)), 1).dtype == "float32"
        assert (2 - x).dtype == (2**x).dtype == "int32"
        assert x[:, 1:3].shape == (None, 2, 1)
        assert (1 / x).dtype == "float32"
        assert (True & x).dtype == (x | x).dtype == (x ^ x).dtype == "bool"


def test_a_variable_is_read_by_jax_transformations():
    v = ks.Variable(B)
    gradient = jax.grad(lambda x: ks.ops.sum(v * x * x))(jnp.asarray(B))
    same(gradient, 2 * B * B)
    same(jax.jit(lambda x: v + x)(B), 2 * B)


def test_operators_load_the_ops_at_first_use():
    code = "import sys, kerasoft as ks; v = ks.Variable([1.0]); assert 'jax' not in sys.modules; assert float((v + 1)[0]) == 2"
    subprocess.run([sys.executable, "-c", code], check=True)
