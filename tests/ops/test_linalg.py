"""`ops.linalg`, Fourier transforms and segment reductions against Keras; each public name has a row."""

import keras
import numpy as np
import pytest
from namespaces import check, check_gradient, check_symbolic, public

import kerasoft as ks

rng = np.random.default_rng(3)
A = rng.normal(size=(2, 3, 3)).astype("float32")
S = (A @ A.swapaxes(-1, -2) + 3 * np.eye(3)).astype("float32")
LOW = np.tril(S).astype("float32")
R = rng.normal(size=(2, 4, 3)).astype("float32")
B = rng.normal(size=(2, 3, 2)).astype("float32")
I = np.array([[2, 1], [1, 3]], "int32")  # noqa: E741
X, Y = rng.normal(size=(2, 2, 24)).astype("float32")
IDS = np.array([0, 2, 2, 0], "int32")
SPECTRUM = tuple(np.asarray(v) for v in keras.ops.stft(X, 8, 3, 16))
BARE = tuple(np.asarray(v) for v in keras.ops.stft(X, 8, 3, 16, window=None))

ROWS = [
    ("linalg.cholesky", (S,), {}),
    ("linalg.cholesky", (S,), {"upper": True}),
    ("linalg.cholesky_inverse", (LOW[0],), {}),
    ("linalg.cholesky_inverse", (LOW[0].T.copy(),), {"upper": True}),
    ("linalg.det", (A,), {}),
    ("linalg.det", (I,), {}),
    ("linalg.eig", (A,), {}),
    ("linalg.eigh", (S,), {}),
    ("linalg.inv", (A,), {}),
    ("linalg.inv", (I,), {}),
    ("linalg.lstsq", (R[0], R[1]), {}),
    ("linalg.lstsq", (R[0], R[1, :, 0]), {"rcond": 0.1}),
    ("linalg.lu_factor", (A,), {}),
    ("linalg.matrix_rank", (R,), {}),
    ("linalg.norm", (R,), {}),
    ("linalg.norm", (R,), {"ord": "nuc", "axis": (1, 2)}),
    ("linalg.norm", (R,), {"ord": -2, "axis": (0, 2), "keepdims": True}),
    ("linalg.norm", (R,), {"ord": 3, "axis": -1}),
    ("linalg.norm", (R,), {"ord": 0, "axis": 1}),
    ("linalg.norm", (I,), {"ord": np.inf, "axis": 0, "keepdims": True}),
    ("linalg.pinv", (R,), {}),
    ("linalg.qr", (R,), {}),
    ("linalg.qr", (R,), {"mode": "complete"}),
    ("linalg.solve", (A, B), {}),
    ("linalg.solve", (A[0], B[0, :, 0]), {}),
    ("linalg.solve_triangular", (S, B), {}),
    ("linalg.solve_triangular", (S, B), {"lower": True}),
    ("linalg.svd", (R,), {}),
    ("linalg.svd", (R,), {"full_matrices": False}),
    ("linalg.svd", (R,), {"compute_uv": False}),
    ("slogdet", (A,), {}),
    ("logdet", (S,), {}),
    ("fft", ((X, Y),), {}),
    ("fft2", ((X, Y),), {}),
    ("ifft2", ((X, Y),), {}),
    ("rfft", (X,), {}),
    ("rfft", (X,), {"fft_length": 16}),
    ("irfft", ((X, Y),), {}),
    ("irfft", ((X, Y),), {"fft_length": 31}),
    ("extract_sequences", (X, 8, 3), {}),
    ("stft", (X, 8, 3, 16), {}),
    ("stft", (X, 7, 3, 9), {"window": "hamming", "center": False}),
    ("stft", (X, 8, 3, 10), {"window": np.arange(1.0, 9.0)}),
    ("stft", (X, 8, 3, 8), {"window": None}),
    ("istft", (SPECTRUM, 8, 3, 16), {}),
    ("istft", (SPECTRUM, 8, 3, 16), {"length": 20}),
    ("istft", (SPECTRUM, 8, 3, 16), {"center": False}),
    ("istft", (BARE, 8, 3, 16), {"window": None}),
    ("segment_sum", (R[0], IDS), {"num_segments": 4}),
    ("segment_sum", (R[0], np.array([0, -1, 7, 2])), {"num_segments": 3}),
    ("segment_max", (R[0], IDS), {"num_segments": 4}),
    ("segment_min", (R[0], IDS), {"num_segments": 4}),
    ("segment_prod", (R[0], IDS), {"num_segments": 4, "sorted": False}),
]


def test_each_public_name_has_a_row():
    names = {name for name, _, _ in ROWS}
    assert {f"linalg.{n}" for n in public(keras.ops.linalg)} - names == {"linalg.jvp"}
    assert public(keras.ops.linalg) <= public(ks.ops.linalg)
    assert all(hasattr(ks.ops, n.removeprefix("linalg.")) for n in names)


@pytest.mark.parametrize(("name", "args", "kwargs"), ROWS)
def test_values_are_those_of_keras(name, args, kwargs):
    check(name, args, kwargs, 1e-4)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("linalg.solve", (A, B), {}),
        ("linalg.inv", (S,), {}),
        ("linalg.norm", (R,), {"ord": "nuc", "axis": (1, 2)}),
        ("logdet", (S,), {}),
        ("rfft", (X,), {}),
        ("stft", (X, 8, 3, 16), {}),
        ("segment_min", (R[0], IDS), {"num_segments": 3}),
    ],
)
def test_gradients_are_those_of_keras(name, args, kwargs):
    check_gradient(name, args, kwargs, 1e-3)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("linalg.svd", (R,), {}),
        ("linalg.qr", (R,), {"mode": "complete"}),
        ("linalg.pinv", (R,), {}),
        ("linalg.det", (A,), {}),
        ("rfft", (X,), {"fft_length": 16}),
        ("irfft", ((X, Y),), {}),
        ("stft", (X, 8, 3, 16), {}),
        ("istft", (SPECTRUM, 8, 3, 16), {}),
        ("extract_sequences", (X, 8, 3), {}),
    ],
)
def test_shapes_of_unknown_batches_are_those_of_keras(name, args, kwargs):
    check_symbolic(name, args, kwargs)


def test_a_signal_of_unknown_length_is_transformed():
    real, imaginary = ks.ops.stft(ks.KerasTensor((None, None)), 8, 4, 16)
    assert real.shape == imaginary.shape == (None, None, 9)


def test_a_jacobian_product_forwards():
    value, slope = ks.ops.linalg.jvp(ks.ops.sin, (np.float32(0.1),), (np.float32(0.2),))
    np.testing.assert_allclose([value, slope], [np.sin(0.1), 0.2 * np.cos(0.1)], rtol=1e-6)
    *_, aux = ks.ops.jvp(lambda x: (x * x, x + 1), (np.float32(2.0),), (np.float32(1.0),), has_aux=True)
    assert float(aux) == 3.0
    value, slope = ks.ops.jvp(ks.ops.sin, (ks.Input((3,)),), (ks.Input((3,)),))
    assert value.shape == slope.shape == (None, 3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda o: o.cholesky(-np.eye(2, dtype="float32")), ValueError, "might not be a valid positive definite"),
        (lambda o: o.inv(R), ValueError, r"Expected a square matrix. Received non-square input with shape \(2, 4, 3\)"),
        (lambda o: o.det(X[0]), ValueError, "Expected input to have rank >= 2"),
        (lambda o: o.solve(A, B[:, :2]), ValueError, r"Expected `a.shape\[-2\] == b.shape\[-2\]`"),
        (lambda o: o.qr(R, mode="full"), ValueError, "Expected one of {'reduced', 'complete'}. Received: mode=full"),
        (lambda o: o.norm(R, ord="two"), ValueError, "Received: ord=two"),
        (lambda o: o.norm(R, ord="fro", axis=1), ValueError, "Invalid `ord` argument for vector norm"),
        (lambda o: o.norm(R, ord=3, axis=(0, 1)), ValueError, "Invalid `ord` argument for matrix norm"),
        (lambda o: o.lstsq(R, B), ValueError, "Expected a to have rank 2"),
        (lambda o: o.fft(X), ValueError, "tuple of two tensors - real and imaginary"),
        (lambda o: o.fft((X, Y[:, :3])), ValueError, "should have the same shape"),
        (lambda o: o.irfft((I, I)), ValueError, "not of type float"),
        (lambda o: o.stft(I, 2, 1, 2), TypeError, "Expected `float32` or `float64`"),
        (lambda o: o.stft(X, 8, 2, 4), ValueError, "`fft_length` must equal or larger than `sequence_length`"),
        (lambda o: o.stft(X, 8, 2, 8, window="box"), ValueError, "Received: window=box"),
        (lambda o: o.segment_sum(R, IDS), ValueError, "Argument `segment_ids` and `data` should have same leading"),
        (lambda o: o.segment_max(X, X), ValueError, "Argument `segment_ids` should be an 1-D vector"),
        (lambda o: o.stft(X, 2, 1.5, 4), ValueError, "`sequence_stride` must be a positive integer"),
        (lambda o: o.slice(X, (1, 1), (1, 1, 1)), ValueError, "dimensions in `inputs` must match"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call(ks.ops)
