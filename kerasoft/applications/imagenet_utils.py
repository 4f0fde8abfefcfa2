"""What goes into and comes out of models trained on ImageNet: scaling of pixels, names of classes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import config, ops
from ..utils.downloads import get_file

CLASS_INDEX_URL = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
CLASS_INDEX_MD5 = "c2c37ea517e94d9795004a39431a14cb"
_BGR_MEANS = (103.939, 116.779, 123.68)
_RGB_MEANS, _RGB_DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocess_input(x: Any, data_format: str | None = None, mode: str = "caffe") -> Any:
    """Pixels (0 .. 255, RGB) as a family of models was trained on them.

    Args:
        x: one image or a batch; a float array of NumPy is changed in place.
        data_format: "channels_last" or "channels_first"; the global setting by default.
        mode: "caffe" (BGR, ImageNet's means taken away), "tf" (-1 .. 1) or "torch" (0 .. 1, then normalised by channel).

    Raises:
        ValueError: an unknown mode or data format.

    >>> preprocess_input(np.array([[[0.0, 127.5, 255.0]]]), mode="tf").tolist()
    [[[-1.0, 0.0, 1.0]]]
    """
    if mode not in ("caffe", "tf", "torch"):
        raise ValueError(f"Expected mode to be one of `caffe`, `tf` or `torch`. Received: mode={mode}")
    if data_format is None:
        data_format = config.image_data_format()
    elif data_format not in ("channels_first", "channels_last"):
        raise ValueError(
            f"Expected data_format to be one of `channels_first` or `channels_last`. Received: data_format={data_format}"
        )
    rank = len(x.shape)
    axis = rank - 1 if data_format == "channels_last" else rank - 3
    shape = tuple(3 if i == axis else 1 for i in range(rank))
    if isinstance(x, np.ndarray):
        return _numpy(x, mode, axis, shape)
    if mode == "tf":
        return x / 127.5 - 1.0
    x = x / 255.0 if mode == "torch" else ops.flip(x, axis)
    means = _RGB_MEANS if mode == "torch" else _BGR_MEANS
    x = x + ops.reshape(ops.cast(-np.array(means), x.dtype), shape)
    return x / ops.reshape(ops.cast(np.array(_RGB_DEVIATIONS), x.dtype), shape) if mode == "torch" else x


def _numpy(x: np.ndarray, mode: str, axis: int, shape: tuple) -> np.ndarray:
    if not np.issubdtype(x.dtype, np.floating):
        x = x.astype(config.floatx())
    if mode == "tf":
        x /= 127.5
        x -= 1.0
    elif mode == "torch":
        x /= 255.0
        x -= np.reshape(np.asarray(_RGB_MEANS, x.dtype), shape)
        x /= np.reshape(np.asarray(_RGB_DEVIATIONS, x.dtype), shape)
    else:
        x = np.flip(x, axis)
        x -= np.reshape(np.asarray(_BGR_MEANS, x.dtype), shape)
    return x


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """The `top` classes of each row of ImageNet scores: (WordNet id, name, score), the best first.

    Raises:
        ValueError: not of shape (rows, 1000).
        DownloadError: the table of names is not in the cache and cannot be downloaded.
    """
    if len(preds.shape) != 2 or preds.shape[1] != 1000:
        raise ValueError(
            "`decode_predictions` expects a batch of predictions (i.e. a 2D array of shape (samples, 1000)). Received "
            f"array with shape: {preds.shape}"
        )
    names = _class_names()
    decoded = []
    for row in np.asarray(preds):
        best = row.argsort()[-top:][::-1]
        decoded.append(sorted(((*names[str(i)], row[i]) for i in best), key=lambda item: item[2], reverse=True))
    return decoded


@functools.cache
def _class_names() -> dict[str, list[str]]:
    path = get_file("imagenet_class_index.json", CLASS_INDEX_URL, cache_subdir="models", file_hash=CLASS_INDEX_MD5)
    with open(path) as file:
        return json.load(file)


def preprocessing(mode: str | None) -> Callable:
    """A family's `preprocess_input`; None leaves the pixels to the model itself."""

    def preprocess_input_of_family(x: Any, data_format: str | None = None) -> Any:
        return x if mode is None else preprocess_input(x, data_format=data_format, mode=mode)

    preprocess_input_of_family.__name__ = preprocess_input_of_family.__qualname__ = "preprocess_input"
    preprocess_input_of_family.__doc__ = (
        "The same pixels: scaling is a part of the model."
        if mode is None
        else f"Pixels (0 .. 255, RGB) as the models of this family take them: mode {mode!r} of imagenet_utils."
    )
    return preprocess_input_of_family
