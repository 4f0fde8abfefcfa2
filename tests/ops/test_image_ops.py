"""`ops.image` against Keras; each public name has a row."""

import keras
import numpy as np
import pytest
from namespaces import check, check_gradient, check_symbolic, public

import kerasoft as ks

rng = np.random.default_rng(3)
X = rng.uniform(size=(2, 7, 6, 3)).astype("float32")
U = (X * 255).astype("uint8")
FIRST = np.ascontiguousarray(X.transpose(0, 3, 1, 2))
ONE = X[0]
TURN = np.array([[0.9, 0.2, 0.5, -0.2, 1.1, -0.7, 0, 0], [1, 0.1, -2, 0.3, 0.8, 1, 0, 0]], "float32")
CORNERS = np.array([[0, 0], [0, 6], [5, 0], [5, 6]], "float32")
MOVED = np.stack([CORNERS, CORNERS + 0.3]) + rng.normal(size=(2, 4, 2)).astype("float32")
LARGE = rng.uniform(size=(2, 2, 13, 12, 3)).astype("float32")
VOLUME = rng.uniform(size=(1, 4, 5, 6, 2)).astype("float32")
CF = {"data_format": "channels_first"}
CL = {"data_format": "channels_last"}

ROWS = [
    ("resize", (X, (5, 9)), {}),
    ("resize", (U, (5, 9)), {}),
    ("resize", (U, (5, 9)), {"interpolation": "nearest"}),
    ("resize", (X, (5, 4)), {"antialias": True}),
    ("resize", (X, (5, 9)), {"interpolation": "bicubic", "antialias": True}),
    ("resize", (X, (5, 9)), {"interpolation": "lanczos3"}),
    ("resize", (U, (5, 4)), {"interpolation": "lanczos5"}),
    ("resize", (ONE, (4, 8)), {"crop_to_aspect_ratio": True}),
    ("resize", (X, (8, 4)), {"crop_to_aspect_ratio": True}),
    ("resize", (X, (8, 4)), {"pad_to_aspect_ratio": True, "fill_value": 0.5}),
    ("resize", (ONE, (4, 8)), {"pad_to_aspect_ratio": True}),
    ("resize", (FIRST, (3, 8)), {"pad_to_aspect_ratio": True, **CF}),
    *(
        ("affine_transform", (X, TURN), {"fill_mode": mode, "interpolation": kind, "fill_value": 0.3})
        for mode in ("constant", "nearest", "wrap", "mirror", "reflect")
        for kind in ("bilinear", "nearest")
    ),
    ("affine_transform", (ONE, TURN[0]), {}),
    ("affine_transform", (FIRST, TURN), CF),
    ("perspective_transform", (X, np.stack([CORNERS, CORNERS]), MOVED), {}),
    ("perspective_transform", (ONE, CORNERS, MOVED[0]), {"interpolation": "nearest", "fill_value": 0.2}),
    ("perspective_transform", (FIRST, np.stack([CORNERS, CORNERS]), MOVED), CF),
    ("map_coordinates", (X[0, :, :, 0], 7 * LARGE[0, :, :4, :5, 0] - 1, 1), {"fill_mode": "reflect"}),
    ("map_coordinates", (X[0, :, :, 0], 5 * LARGE[0, :, :4, 0, 0], 0), {"fill_value": 2.0}),
    ("pad_images", (X,), {"top_padding": 1, "bottom_padding": 2, "left_padding": 1, "target_width": 9}),
    ("pad_images", (FIRST,), {"top_padding": 0, "target_height": 9, "left_padding": 1, "right_padding": 0, **CF}),
    ("crop_images", (X,), {"top_cropping": 1, "bottom_cropping": 2, "left_cropping": 1, "target_width": 3}),
    ("crop_images", (ONE,), {"bottom_cropping": 1, "target_height": 2, "right_cropping": 1, "target_width": 3}),
    ("crop_images", (FIRST,), {"top_cropping": 1, "target_height": 2, "left_cropping": 1, "right_cropping": 0, **CF}),
    ("extract_patches", (X, 3), {}),
    ("extract_patches", (X, (2, 3), 2), {"padding": "same"}),
    ("extract_patches", (FIRST, 3, 1), CF),
    ("extract_patches", (ONE, 2, 1, 2), {}),
    ("extract_patches", (VOLUME, (2, 2, 2)), {}),
    ("extract_patches_3d", (VOLUME, 2), {}),
    ("extract_patches_3d", (VOLUME[0], (2, 1, 3), 1), {}),
    ("gaussian_blur", (X, (3, 5), (1.0, 0.7)), CL),
    ("gaussian_blur", (FIRST,), CF),
    ("gaussian_blur", (ONE,), CL),
    ("elastic_transform", (X,), {"seed": 3, "sigma": 0.6}),
    ("elastic_transform", (FIRST,), {"seed": 3, "sigma": 1.0, "alpha": 5.0, "fill_mode": "constant", **CF}),
    ("rgb_to_grayscale", (X,), {}),
    ("rgb_to_grayscale", (U,), {}),
    ("rgb_to_grayscale", (FIRST,), CF),
    ("rgb_to_hsv", (X,), {}),
    ("rgb_to_hsv", (FIRST,), CF),
    ("hsv_to_rgb", (X,), {}),
    ("hsv_to_rgb", (FIRST,), CF),
    ("scale_and_translate", (X, (2, 9, 8, 3), TURN[0, :2] + 1, TURN[0, 1:3], (1, 2), "linear"), {}),
    ("scale_and_translate", (X, (2, 9, 8, 3), TURN[0, :2], TURN[0, 1:3], (1, 2), "lanczos3", False), {}),
    ("sobel_edges", (X,), {}),
    ("sobel_edges", (FIRST,), CF),
    ("ssim", (LARGE[0], LARGE[1]), {}),
    ("ssim", (X[0], X[1]), {"filter_size": 5, "max_val": 2.0}),
]


def test_each_public_name_has_a_row():
    assert {name for name, _, _ in ROWS} == public(keras.ops.image) == set(ks.ops.image.__all__)


@pytest.mark.parametrize(("name", "args", "kwargs"), ROWS)
def test_values_are_those_of_keras(name, args, kwargs):
    check(f"image.{name}", args, kwargs, 1e-4)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("resize", (X, (5, 9)), {"interpolation": "bicubic"}),
        ("affine_transform", (X, TURN), {"fill_mode": "reflect"}),
        ("perspective_transform", (X, np.stack([CORNERS, CORNERS]), MOVED), {}),
        ("gaussian_blur", (X,), CL),
        ("rgb_to_hsv", (X,), {}),
    ],
)
def test_gradients_are_those_of_keras(name, args, kwargs):
    check_gradient(f"image.{name}", args, kwargs, 1e-3)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("resize", (X, (5, 9)), {"crop_to_aspect_ratio": True}),
        ("gaussian_blur", (X,), {}),
        ("elastic_transform", (X,), {}),
        ("pad_images", (X,), {"top_padding": 1, "bottom_padding": 2, "left_padding": 1, "target_width": 9}),
        ("extract_patches", (X, 3), {"padding": "same"}),
        ("rgb_to_grayscale", (FIRST,), CF),
        ("ssim", (LARGE[0], LARGE[1]), {}),
    ],
)
def test_shapes_of_unknown_batches_are_those_of_keras(name, args, kwargs):
    check_symbolic(f"image.{name}", args, kwargs)


def test_images_of_unknown_size_are_resized():
    assert ks.ops.image.resize(ks.KerasTensor((None, None, None, 3)), (3, 4)).shape == (None, 3, 4, 3)
    with pytest.raises(ValueError, match="to an aspect ratio needs images of known height and width"):
        ks.ops.image.resize(ks.KerasTensor((None, None, None, 3)), (3, 4), crop_to_aspect_ratio=True)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda o: o.resize(X, (3,)), ValueError, "Expected `size` to be a tuple of 2 integers"),
        (lambda o: o.resize(X, (3, 0)), ValueError, "`size` must have positive height and width"),
        (lambda o: o.resize(X[0, 0], (3, 4)), ValueError, r"Invalid images rank: expected rank 3 .*shape=\(6, 3\)"),
        (lambda o: o.resize(X, (3, 4), "cubic"), ValueError, "Received: interpolation=cubic"),
        (lambda o: o.resize(X, (3, 4), fill_mode="wrap"), ValueError, "Only `'constant'` is supported"),
        (lambda o: o.resize(X, (3, 4), data_format="last"), ValueError, "`data_format` argument must be one of"),
        (
            lambda o: o.resize(X, (3, 4), crop_to_aspect_ratio=True, pad_to_aspect_ratio=True),
            ValueError,
            "Only one of `pad_to_aspect_ratio` & `crop_to_aspect_ratio`",
        ),
        (lambda o: o.affine_transform(X, TURN, fill_mode="edge"), ValueError, "Received: fill_mode=edge"),
        (lambda o: o.affine_transform(X, TURN[None]), ValueError, "Invalid transform rank"),
        (lambda o: o.perspective_transform(X, CORNERS[:3], CORNERS), ValueError, "Invalid start_points shape"),
        (lambda o: o.perspective_transform(X, CORNERS, MOVED), ValueError, "must have the same shape"),
        (lambda o: o.map_coordinates(ONE, TURN, 1), ValueError, "First dim of `coordinates` must be the same"),
        (lambda o: o.map_coordinates(ONE[0], TURN, 2), ValueError, "Received: order=2"),
        (lambda o: o.pad_images(X, 1, 1), ValueError, "Must specify exactly two of top_padding, bottom_padding"),
        (lambda o: o.crop_images(X, 9, 0, 0, 0), ValueError, "target_height must be >= 0"),
        (lambda o: o.extract_patches(X, (1, 2, 3, 4)), ValueError, "Expected a tuple of length 2 or 3"),
        (lambda o: o.extract_patches(X, 2.5), TypeError, "Expected an int or a tuple"),
        (lambda o: o.rgb_to_grayscale(X[..., :2]), ValueError, "Invalid channel size: expected 3 .RGB. or 1"),
        (lambda o: o.rgb_to_hsv(U), ValueError, "Invalid images dtype: expected float dtype"),
        (lambda o: o.hsv_to_rgb(X[..., :2]), ValueError, "must have 3 channels, but received images with 2"),
        (lambda o: o.sobel_edges(ONE), ValueError, "expected rank 4 .batch of images."),
        (lambda o: o.scale_and_translate(X, X.shape, 1, 1, (1,), "box"), ValueError, "Received: method=box"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call(ks.ops.image)
