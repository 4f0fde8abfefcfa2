"""Image layers against Keras where nothing is left to chance; else their draws, row by row."""

import json

import jax
import keras
import numpy as np
import pytest
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.registry import input_node

import kerasoft as ks
from kerasoft import layers
from kerasoft.layers import image
from kerasoft.scope import Scope

rng = np.random.default_rng(0)
X = (rng.uniform(size=(3, 8, 10, 3)) * 255).astype("float32")
FIRST = np.ascontiguousarray(X.transpose(0, 3, 1, 2))
CLAHE = "ContrastLimitedAdaptiveHistogramEqualization"

FIXED = [  # no choice left: one number as both ends of a range
    ("Resizing", lambda L, **k: L.Resizing(4, 6, **k)),
    ("Resizing", lambda L, **k: L.Resizing(4, 6, "bicubic", crop_to_aspect_ratio=True, antialias=True, **k)),
    ("Resizing", lambda L, **k: L.Resizing(4, 3, pad_to_aspect_ratio=True, fill_value=3, **k)),
    ("CenterCrop", lambda L, **k: L.CenterCrop(5, 4, **k)),
    ("CenterCrop", lambda L, **k: L.CenterCrop(12, 4, **k)),
    ("RandomRotation", lambda L, **k: L.RandomRotation((0.1, 0.1), **k)),
    ("RandomRotation", lambda L, **k: L.RandomRotation((-0.2, -0.2), "constant", "nearest", fill_value=7.0, **k)),
    ("RandomZoom", lambda L, **k: L.RandomZoom((0.2, 0.2), **k)),
    ("RandomZoom", lambda L, **k: L.RandomZoom((0.2, 0.2), (-0.3, -0.3), fill_mode="wrap", **k)),
    ("RandomTranslation", lambda L, **k: L.RandomTranslation((0.2, 0.2), (-0.3, -0.3), **k)),
    ("RandomShear", lambda L, **k: L.RandomShear((0, 0), (0, 0), **k)),
    ("RandomCrop", lambda L, **k: L.RandomCrop(12, 14, seed=1, **k)),
    ("RandomContrast", lambda L, **k: L.RandomContrast((0, 0), seed=2, **k)),
    ("RandomBrightness", lambda L, **k: L.RandomBrightness((0.2, 0.2), **k)),
    ("RandomPerspective", lambda L, **k: L.RandomPerspective(1.0, 0.0, **k)),
    ("RandomElasticTransform", lambda L, **k: L.RandomElasticTransform(0.0, **k)),
    ("RandomGaussianBlur", lambda L, **k: L.RandomGaussianBlur((1.0, 1.0), 3, (0.7, 0.7), **k)),
    ("RandomErasing", lambda L, **k: L.RandomErasing((1.0, 1.0), (1.0, 1.0), fill_value=5, **k)),
    ("RandomGrayscale", lambda L, **k: L.RandomGrayscale(1.0, **k)),
    ("RandomHue", lambda L, **k: L.RandomHue((0.0, 0.0), **k)),
    ("RandomSaturation", lambda L, **k: L.RandomSaturation((0.3, 0.3), **k)),
    ("RandomSharpness", lambda L, **k: L.RandomSharpness((0.3, 0.3), **k)),
    ("RandomSharpness", lambda L, **k: L.RandomSharpness((0.9, 0.9), **k)),
    (
        "RandomColorJitter",
        lambda L, **k: L.RandomColorJitter(brightness_factor=(0.1, 0.1), contrast_factor=(0, 0), **k),
    ),
    ("RandomColorDegeneration", lambda L, **k: L.RandomColorDegeneration((0.4, 0.4), **k)),
    ("RandomInvert", lambda L, **k: L.RandomInvert((1.0, 1.0), **k)),
    ("RandomPosterization", lambda L, **k: L.RandomPosterization((3, 3), **k)),
    ("RandomPosterization", lambda L, **k: L.RandomPosterization((5, 5), value_range=(0, 300), **k)),
    ("AutoContrast", lambda L, **k: L.AutoContrast(**k)),
    ("AutoContrast", lambda L, **k: L.AutoContrast((0, 300), **k)),
    ("Equalization", lambda L, **k: L.Equalization((0, 300), bins=16, **k)),
    ("Solarization", lambda L, **k: L.Solarization(0.0, 0.0, **k)),
    (CLAHE, lambda L, **k: getattr(L, CLAHE)((0, 300), 2.0, (3, 4), **k)),
    ("MaxNumBoundingBoxes", lambda L, **k: L.MaxNumBoundingBoxes(3, **k)),
]
RANDOM = [
    ("RandomFlip", lambda L, **k: L.RandomFlip(**k)),
    ("RandomRotation", lambda L, **k: L.RandomRotation(0.2, **k)),
    ("RandomZoom", lambda L, **k: L.RandomZoom(0.3, (0.1, 0.5), **k)),
    ("RandomTranslation", lambda L, **k: L.RandomTranslation(0.2, 0.2, **k)),
    ("RandomCrop", lambda L, **k: L.RandomCrop(4, 5, **k)),
    ("RandomContrast", lambda L, **k: L.RandomContrast(0.5, **k)),
    ("RandomBrightness", lambda L, **k: L.RandomBrightness(0.2, **k)),
    ("RandomPerspective", lambda L, **k: L.RandomPerspective((1.0, 1.0), 0.5, **k)),
    ("RandomElasticTransform", lambda L, **k: L.RandomElasticTransform((1.0, 1.0), **k)),
    ("RandomGaussianBlur", lambda L, **k: L.RandomGaussianBlur((1.0, 1.0), 5, **k)),
    ("RandomErasing", lambda L, **k: L.RandomErasing((1.0, 1.0), **k)),
    ("RandomHue", lambda L, **k: L.RandomHue(0.4, **k)),
    ("RandomColorJitter", lambda L, **k: L.RandomColorJitter((0, 255), 0.2, 0.3, 0.4, 0.2, **k)),
    ("RandomPosterization", lambda L, **k: L.RandomPosterization((1, 5), **k)),
    ("Solarization", lambda L, **k: L.Solarization(0.4, 0.6, **k)),
    ("RandAugment", lambda L, **k: L.RandAugment(num_ops=3, factor=(0.1, 0.6), **k)),
    ("AugMix", lambda L, **k: L.AugMix(num_chains=2, chain_depth=1, all_ops=False, **k)),
    ("CutMix", lambda L, **k: L.CutMix((0.9, 1.0), **k)),
    ("MixUp", lambda L, **k: L.MixUp(0.9, **k)),
    ("RandomShear", lambda L, **k: L.RandomShear((0.3, 0.5), (0.1, 0.2), **k)),
]
EACH = [*FIXED, *RANDOM]


def named(value):
    return value if isinstance(value, str) else ""


def config(layer):
    return json.loads(json.dumps({k: v for k, v in layer.get_config().items() if k not in ("name", "dtype")}))


def test_each_public_layer_has_a_row():
    assert {name for name, _ in EACH} == set(image.__all__) - {"ImageLayer"}


@pytest.mark.parametrize(("name", "make"), FIXED, ids=named)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_what_is_not_random_is_keras(name, make, data_format):
    ours, theirs = (make(L, data_format=data_format) for L in (layers, keras.layers))
    x = X if data_format == "channels_last" else FIRST
    got, want = ours(x, training=True), theirs(x, training=True)
    assert got.shape == want.shape and got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3)  # values up to 255
    symbolic = ours(ks.KerasTensor((None, *x.shape[1:])))
    assert (symbolic.shape, symbolic.dtype) == ((None, *want.shape[1:]), "float32")


@pytest.mark.parametrize(("name", "make"), FIXED, ids=named)
def test_one_image_of_bytes(name, make):
    if name in ("RandomBrightness", "RandomSaturation"):
        return  # Keras wraps around at 256, and refuses ints
    x = X[0].astype("uint8")
    for training in (True, False):
        got, want = make(layers)(x, training=training), make(keras.layers)(x, training=training)
        assert got.shape == want.shape and got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("name", "make"), EACH, ids=named)
def test_configs_are_keras(name, make):
    options = (
        {}
        if name in ("Resizing", "CenterCrop", "AutoContrast", "Equalization", CLAHE, "MaxNumBoundingBoxes")
        else {"seed": 4}
    )
    if name in ("RandomContrast", "RandomCrop"):
        options = {} if name == "RandomContrast" or make(layers).seed == 1 else options
    try:
        ours, theirs = make(layers, **options), make(keras.layers, **options)
    except TypeError:  # the row gives a seed itself
        ours, theirs = make(layers), make(keras.layers)
    assert config(ours) == config(theirs)
    again = type(ours).from_config(ours.get_config())
    assert again.get_config() == ours.get_config()
    if name != "RandomShear":  # Keras's cannot read its own config
        assert config(type(theirs).from_config(ours.get_config())) == config(theirs)


@pytest.mark.parametrize(("name", "make"), RANDOM, ids=named)
def test_elsewhere_than_in_training_images_stay(name, make):
    np.testing.assert_array_equal(make(layers)(X, training=False), X)


@pytest.mark.shipped  # bits
@pytest.mark.parametrize(("name", "make"), RANDOM, ids=named)
def test_a_row_has_its_own_draws_wherever_it_is(name, make):
    """Compiled with row ids: rows differ, the next step differs, and other companions change nothing."""
    layer = make(layers)
    same = np.repeat(X[:1], 4, axis=0)
    b = symbol("b")
    x, ids, key = (
        input_node("x", (b, 8, 10, 3), "float32"),
        input_node("i", (b,), "uint32"),
        input_node("k", (2,), "uint32"),
    )
    with Scope(training=True, row_id=ids, key=key) as scope:
        out = layer(x)
    run = jax.jit(function(Graph((x, ids, key), (out,), ("out",))))
    rows, first, second = np.arange(10, 14, dtype="uint32"), np.array([3, 4], "uint32"), np.array([3, 5], "uint32")
    (whole,), (other,) = run(same, rows, first), run(same, rows, second)
    assert np.isfinite(whole).all()
    if name not in ("CutMix", "MixUp"):  # mixes of one image are that image
        assert np.abs(np.asarray(whole) - other).max() > 1e-3
    if scope.couples_rows:
        assert name in ("CutMix", "MixUp", "RandAugment", "AugMix") and scope.exact_rows
        return
    (part,) = run(same[1:3], rows[1:3], first)
    np.testing.assert_array_equal(np.asarray(whole)[1:3], part)
    if name not in ("RandomFlip", "RandomCrop", "RandomGaussianBlur", "RandomPosterization"):
        assert np.abs(np.asarray(whole)[0] - np.asarray(whole)[1]).max() > 1e-3


@pytest.mark.parametrize(("name", "make"), EACH, ids=named)
def test_images_of_unknown_size(name, make):
    got, want = make(layers)(ks.Input((None, None, 3))), make(keras.layers)(keras.Input((None, None, 3)))
    assert got.shape == tuple(want.shape)


def test_eager_draws_follow_the_seed():
    one, two, other = (layers.RandomRotation(0.3, seed=s) for s in (5, 5, 6))
    first, again, different = (np.asarray(layer(X)) for layer in (one, two, other))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - different).max() > 1 and np.abs(first - np.asarray(one(X))).max() > 1


def test_frequencies():
    many = np.broadcast_to(X[:1], (400, 8, 10, 3))
    turned = np.abs(np.asarray(layers.RandomFlip("horizontal", seed=1)(many)) - many).max(axis=(1, 2, 3)) > 0
    inverted = np.asarray(layers.RandomInvert((0.3, 0.3), seed=1)(many))[:, 0, 0, 0] != many[:, 0, 0, 0]
    gray = np.asarray(layers.RandomGrayscale(0.8, seed=1)(many))
    assert abs(turned.mean() - 0.5) < 0.08 and abs(inverted.mean() - 0.3) < 0.08
    assert abs((gray[:, 0, 0, 0] == gray[:, 0, 0, 1]).mean() - 0.8) < 0.08
    erased = np.asarray(layers.RandomErasing((0.5, 0.5), (0.25, 0.25), fill_value=0, seed=1)(many))[..., 0] == 0
    share = erased.mean(axis=(1, 2))
    assert abs((share > 0).mean() - 0.5) < 0.08 and abs(share[share > 0].mean() - 0.25) < 0.04
    added = np.asarray(layers.RandomBrightness(0.1, seed=1)(0 * many + 100.0))[:, 0, 0, 0] - 100.0
    assert np.abs(added).max() <= 25.5 and abs(added.mean()) < 2.5 and abs(added.std() - 25.5 / 3**0.5) < 1.5
    weight = layers.MixUp(0.2, seed=1).get_random_transformation(many)["mix_weight"]
    assert abs(np.mean(weight) - 0.5) < 0.07 and abs(np.std(weight) - (0.25 / 1.4) ** 0.5) < 0.04


def test_a_model_with_random_layers_trains_and_predicts_without_chance():
    model = ks.Sequential(
        [
            ks.Input((8, 10, 3), dtype="uint8"),
            layers.RandomFlip(),
            layers.RandomTranslation(0.1, 0.1),
            layers.RandomContrast(0.2),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    x = X.astype("uint8")
    history = model.fit(x, np.ones((3, 1), "float32"), epochs=2, batch_size=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    np.testing.assert_array_equal(model.predict(x, verbose=0), model.predict(x, verbose=0))


BOXES = np.array([[[1, 2, 6, 7], [0, 0, 3, 3]], [[2, 2, 9, 8], [4, 1, 8, 5]], [[0, 1, 2, 3], [5, 5, 9, 7]]], "float32")


@pytest.mark.parametrize(
    "make",
    [
        lambda L, **k: L.Resizing(4, 6, **k),
        lambda L, **k: L.Resizing(4, 4, pad_to_aspect_ratio=True, **k),
        lambda L, **k: L.Resizing(4, 4, crop_to_aspect_ratio=True, **k),
        lambda L, **k: L.CenterCrop(4, 6, **k),
        lambda L, **k: L.RandomRotation((0.1, 0.1), **k),
        lambda L, **k: L.RandomZoom((0.2, 0.2), (0.1, 0.1), **k),
        lambda L, **k: L.RandomTranslation((0.2, 0.2), (-0.3, -0.3), **k),
        lambda L, **k: L.RandomBrightness((0.2, 0.2), **k),
        lambda L, **k: L.MaxNumBoundingBoxes(3, **k),
        lambda L, **k: L.MaxNumBoundingBoxes(1, **k),
    ],
)
def test_labels_boxes_and_masks_go_with_the_images(make):
    mask = (X[..., :1] > 99).astype("float32")

    def data():
        return {
            "images": X,
            "labels": np.eye(3, dtype="float32"),
            "bounding_boxes": {"boxes": BOXES.copy(), "labels": np.array([[1, 2], [0, 1], [2, 2]])},
            "segmentation_masks": mask,
        }

    got, want = (make(L, bounding_box_format="xyxy")(data(), training=True) for L in (layers, keras.layers))
    assert sorted(got) == sorted(want)
    for name in ("images", "labels", "segmentation_masks"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-3)
    for name in ("boxes", "labels"):
        np.testing.assert_allclose(got["bounding_boxes"][name], want["bounding_boxes"][name], rtol=1e-4, atol=1e-3)


def test_flipped_boxes_are_where_the_pixels_are():
    picture = np.zeros((6, 8, 10, 1), "float32")
    picture[:, 2:5, 1:4] = 1.0
    boxes = {"boxes": np.tile(np.float32([1, 2, 4, 5]), (6, 1, 1)), "labels": np.ones((6, 1), "int32")}
    out = layers.RandomFlip(seed=2, bounding_box_format="xyxy")({"images": picture, "bounding_boxes": boxes})
    seen = np.asarray(out["images"])[..., 0]
    assert {tuple(np.argwhere(p)[0]) for p in seen} == {(2, 1), (3, 6)}
    for p, (x1, y1, x2, y2) in zip(seen, np.asarray(out["bounding_boxes"]["boxes"])[:, 0], strict=True):
        (top, left), (bottom, right) = np.argwhere(p).min(0), np.argwhere(p).max(0) + 1
        assert (left, top, right, bottom) == (x1, y1, x2, y2)


def test_mixed_labels_sum_to_one():
    data = {"images": X, "labels": np.eye(3, dtype="float32")}
    for layer in (layers.CutMix(seed=3), layers.MixUp(0.5, seed=3)):
        out = layer(data, training=True)
        np.testing.assert_allclose(np.sum(out["labels"], axis=1), 1.0, rtol=1e-5)
        assert np.abs(np.asarray(out["labels"]) - np.eye(3)).max() > 0.01


def test_pipeline():
    ours = layers.Pipeline([layers.Resizing(4, 4), layers.Rescaling(0.5)])
    theirs = keras.layers.Pipeline([keras.layers.Resizing(4, 4), keras.layers.Rescaling(0.5)])
    np.testing.assert_allclose(ours(X), theirs(X), rtol=1e-5)
    again = layers.Pipeline.from_config(ours.get_config())
    np.testing.assert_array_equal(again(X), ours(X))
    assert [type(layer).__name__ for layer in again.layers] == ["Resizing", "Rescaling"]
    with pytest.raises(ValueError, match="must contain a `layers` key"):
        layers.Pipeline.from_config({"name": "p"})


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda L: L.RandomRotation(2.0), ValueError, r"number .or a list of two numbers. in the range \[-1, 1\]"),
        (lambda L: L.RandomRotation((0.1, 0.2, 0.3)), ValueError, "Received: factor="),
        (lambda L: L.RandomRotation(0.1, fill_mode="edge"), NotImplementedError, "Unknown `fill_mode` edge"),
        (lambda L: L.RandomZoom(0.1, interpolation="cubic"), NotImplementedError, "Unknown `interpolation` cubic"),
        (lambda L: L.RandomZoom(-1.0), ValueError, r"in the range \(-1.0, 1.0\]. Received: input_number=-1.0"),
        (lambda L: L.RandomTranslation(0.1, "all"), ValueError, "Received: width_factor=all"),
        (lambda L: L.RandomShear(-0.1), ValueError, r"in the range \[0, 1.0\]"),
        (lambda L: L.RandomFlip(factor=0.5), ValueError, "Layer RandomFlip does not take a `factor` argument"),
        (lambda L: L.RandomContrast(1.5), ValueError, r"in the range \[0, 1\]"),
        (
            lambda L: L.RandomBrightness(0.1, value_range=5),
            ValueError,
            "`value_range` argument should be a list of two",
        ),
        (lambda L: L.RandomGrayscale(1.5), ValueError, "`factor` should be between 0 and 1. Received: factor=1.5"),
        (lambda L: L.RandomPosterization(9), ValueError, r"in the range \[1, 8\]"),
        (lambda L: L.RandomGaussianBlur(kernel_size=4), ValueError, "kernel_size must be an odd number"),
        (
            lambda L: L.RandomPerspective(scale=2.0),
            ValueError,
            r"`scale` argument should be a number in the range \[0,1\]",
        ),
        (lambda L: L.Solarization(1.5), ValueError, "`addition_factor` and `threshold_factor`"),
        (lambda L: L.RandomFlip()(X[0, 0]), ValueError, "rank 3 .single image. or 4 .batch of images."),
        (
            lambda L: L.RandomFlip()({"images": X, "bounding_boxes": {"boxes": BOXES, "labels": BOXES[..., 0]}}),
            ValueError,
            "didn't specify a bounding box format. Pass a `bounding_box_format` argument to your RandomFlip layer",
        ),
    ],
)
def test_errors(make, error, text):
    with pytest.raises(error, match=text):
        make(layers)
