"""Functional models that hold ops: Keras's files load here and give the same, ours load in Keras and give the same."""

import keras
import numpy as np
import pytest

import kerasoft as ks

X = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
UNARY = """absolute abs fabs negative square sign signbit exp exp2 expm1 sin cos tan arctan sinh cosh tanh arcsinh ceil
floor trunc round isfinite isinf isnan isneginf isposinf isreal deg2rad rad2deg erf erfc sinc i0 real conjugate sum mean
max min prod var std all any argmax argmin amax amin cumsum sort argsort logsumexp count_nonzero ravel flip fliplr
flipud tril triu zeros_like ones_like empty_like logical_not median copy stop_gradient nan_to_num ptp diff trapezoid
average trace diagonal nansum nanmax nanmin nanmean nanprod nanstd nanvar nanmedian nanargmax nanargmin nancumsum
squeeze array""".split()
BINARY = """add subtract multiply divide true_divide maximum minimum fmax fmin fmod mod floor_divide arctan2 hypot
logaddexp logaddexp2 heaviside nextafter equal not_equal greater greater_equal less less_equal divide_no_nan isclose
logical_and logical_or logical_xor append""".split()
ONES = np.ones((6, 2), "float32")
BINS = np.array([-1.0, 0.0, 1.0], "float32")
OTHERS = [
    lambda o, x: o.left_shift(o.cast(x, "int32"), 1),
    lambda o, x: o.bitwise_invert(o.cast(x, "int8")),
    lambda o, x: o.gcd(o.cast(x * 9, "int32"), o.cast(x * 5, "int32")),
    lambda o, x: o.sum(x, axis=(1, -1), keepdims=True),
    lambda o, x: o.reshape(x, (-1, 8, 3)),
    lambda o, x: o.transpose(x, (0, 2, 1)),
    lambda o, x: o.swapaxes(x, 1, 2),
    lambda o, x: o.moveaxis(x, -1, 1),
    lambda o, x: o.expand_dims(x, (1, -1)),
    lambda o, x: o.concatenate([x, x * 2], -1),
    lambda o, x: o.stack([x, x], 1),
    lambda o, x: o.dstack([x, x]),
    lambda o, x: o.split(x, 2, axis=-1)[1],
    lambda o, x: o.split(x, [1, 4], axis=-1)[1],
    lambda o, x: o.array_split(x, 4, axis=-1)[0],
    lambda o, x: o.hsplit(x, 2)[0],
    lambda o, x: o.dsplit(x, [2])[1],
    lambda o, x: o.unstack(x, axis=1)[2],
    lambda o, x: o.repeat(x, 2, axis=1),
    lambda o, x: o.tile(x, (1, 2, 1)),
    lambda o, x: o.roll(x, 1, axis=2),
    lambda o, x: o.pad(x, ((0, 0), (1, 1), (0, 2)), constant_values=2.0),
    lambda o, x: o.pad(x, ((0, 0), (1, 1), (0, 2)), mode="reflect"),
    lambda o, x: o.take(x, [0, 2], axis=1),
    lambda o, x: o.take_along_axis(x, o.argsort(x, axis=-1), axis=-1),
    lambda o, x: x[:, 1:3, ::2],
    lambda o, x: x[..., -1],
    lambda o, x: x[:, None, 0],
    lambda o, x: x[0, 1],
    lambda o, x: o.where(x > 0, x, 0.0),
    lambda o, x: o.clip(x, -0.5, 0.5),
    lambda o, x: o.round(x, 2),
    lambda o, x: o.percentile(x, [10.0, 50.0], axis=-1),
    lambda o, x: o.nanquantile(x, 0.2, axis=1),
    lambda o, x: o.median(x, axis=1),
    lambda o, x: o.digitize(x, BINS),
    lambda o, x: o.searchsorted(BINS, x),
    lambda o, x: o.top_k(x, 2)[0],
    lambda o, x: o.unravel_index(o.argmax(x, axis=-1), (2, 3))[1],
    lambda o, x: o.matmul(x, o.transpose(x, (0, 2, 1))),
    lambda o, x: o.einsum("bij,bkj->bik", x, x),
    lambda o, x: o.tensordot(x, ONES, axes=1),
    lambda o, x: o.outer(x, ONES[0]),
    lambda o, x: o.cross(x[..., :3], x[..., 3:]),
    lambda o, x: o.cdist(x, x),
    lambda o, x: o.vander(o.ravel(x), 3),
    lambda o, x: o.rearrange(x, "b c (h w) -> b (h c) w", h=2),
    lambda o, x: o.view(x, "int32"),
    lambda o, x: o.saturate_cast(x * 100, "uint8"),
    lambda o, x: o.full_like(x, 3.0),
    lambda o, x: o.linspace(x, x + 1, 3),
    lambda o, x: o.select([x > 1, x > 0], [x, x * 2], -1.0),
    lambda o, x: o.slice(x, (0, 1, 1), (2, 2, 3)),
    lambda o, x: o.slice_update(x, (0, 1, 1), np.ones((2, 1, 1), "float32")),
    lambda o, x: o.scatter_update(x, [[0, 0, 0], [1, 1, 1]], BINS[:2]),
    lambda o, x: o.correlate(x[0, 0], x[0, 1], mode="full"),
    lambda o, x: o.meshgrid(x[0, 0], x[0, 1])[0],
    lambda o, x: o.average(x, axis=-1, weights=np.arange(1, 7, dtype="float32")),
    lambda o, x: o.diagflat(x[0, 0], k=1),
    lambda o, x: ((x + 1) * 2 - 3) / 4 // 0.1 % 2,
    lambda o, x: abs(x) ** 1.5 + (1 - x) - (-x),
    lambda o, x: x @ ONES,
    lambda o, x: ~((x > 0) & (x < 1)),
]


def outputs(ops, x):
    flipped = ops.flip(x, -1)
    made = [getattr(ops, name)(x) for name in UNARY]
    made += [getattr(ops, name)(x, flipped) for name in BINARY]
    return made + [function(ops, x) for function in OTHERS]


@pytest.mark.parametrize("writer, reader", [(keras, ks), (ks, keras)], ids=["from keras", "to keras"])
def test_files_with_ops_give_the_same_in_both(writer, reader, tmp_path):
    inputs = writer.Input(batch_shape=X.shape)
    model = writer.Model(inputs, outputs(writer.ops, inputs))
    model.save(tmp_path / "ops.keras")
    loaded = reader.saving.load_model(tmp_path / "ops.keras")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    results = zip(loaded(X), model(X), outputs(keras.ops, X), strict=True)
    for number, (got, written, want) in enumerate(results):
        for value in (got, written):
            assert np.asarray(value).dtype == np.asarray(want).dtype, number
            np.testing.assert_allclose(value, want, rtol=2e-5, atol=2e-5, err_msg=str(number))


def test_ops_take_the_same_names_as_layers_of_keras():
    names = []
    for module in (keras, ks):
        x = module.Input((3,), name="x")
        y = module.ops.nanmean(abs(x) / 2 - x[:, None, 0], axis=-1)
        names.append([layer.name.rstrip("_0123456789") for layer in module.Model(x, y).layers])
    assert names[0] == names[1]
