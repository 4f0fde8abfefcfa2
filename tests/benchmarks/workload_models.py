"""The eight workloads of `workloads.py`: data as NumPy arrays, and the model for Keras and kerasoft, written once.

A builder takes the library as an argument (`keras` or `kerasoft`) and gives a compiled model. Adam and one loss each; no
metrics. `workload_torch.py` has the equal architectures in PyTorch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

USERS, ITEMS = 138_493, 26_744  # MovieLens-20M
VOCABULARY, STEPS = 20_000, 200
INCEPTION = (
    (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), None,
    (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128), None, (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
)  # fmt: skip
"""Filters of 1x1; before and of 3x3; before and of 5x5; after pooling. None: a pool that halves the sizes."""
RESNET = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # filters, blocks, stride of the first


@dataclasses.dataclass(frozen=True)
class Workload:
    """One row of the table.

    Attributes:
        title: as printed. batch: rows of a step.
        fit_rows, predict_rows: rows of one epoch, or of one call of `predict`.
        data: ``data(rows, random) -> x, y``. build: ``build(library) -> compiled model``.
    """

    title: str
    batch: int
    fit_rows: int
    predict_rows: int
    data: Callable[[int, np.random.Generator], tuple[Any, np.ndarray]]
    build: Callable[[Any], Any]

    def rows(self, mode: str) -> int:
        return self.fit_rows if mode == "fit" else self.predict_rows


def _floats(*shape: int, classes: int) -> Callable:
    def data(rows: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return random.standard_normal((rows, *shape), np.float32), random.integers(0, classes, rows).astype(np.int32)

    return data


def _ids(steps: int, vocabulary: int, classes: int) -> Callable:
    def data(rows: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = random.integers(1, vocabulary, (rows, steps)).astype(np.int32)
        y = random.integers(0, classes, rows)
        return x, y.astype(np.int32 if classes > 2 else np.float32)

    return data


def _zipf(count: int, rows: int, random: np.random.Generator) -> np.ndarray:
    """Ids below `count` with Zipf's frequencies (exponent 1), in an order that has nothing to do with them."""
    shares = 1 / np.arange(1, count + 1)
    drawn = np.searchsorted(np.cumsum(shares / shares.sum()), random.random(rows)).clip(max=count - 1)
    return random.permutation(count)[drawn].astype(np.int32)[:, None]


def _ratings(rows: int, random: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    ids = [_zipf(USERS, rows, random), _zipf(ITEMS, rows, random)]
    return ids, random.integers(0, 2, rows).astype(np.float32)


def _frames(rows: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return random.random((rows, 8, 64, 64, 1), np.float32), random.random((rows, 64, 64, 1), np.float32)


def mlp(k: Any) -> Any:
    layers = k.layers
    model = k.Sequential(
        [
            k.Input((784,)),
            layers.Dense(512, activation="relu"),
            layers.Dense(512, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def lenet(k: Any) -> Any:
    layers = k.layers
    model = k.Sequential(
        [
            k.Input((28, 28, 1)),
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def inception(k: Any) -> Any:
    layers = k.layers

    def conv(x: Any, filters: int, size: int, strides: int = 1) -> Any:
        return layers.Conv2D(filters, size, strides=strides, padding="same", activation="relu")(x)

    def halved(x: Any) -> Any:
        return layers.MaxPooling2D(3, strides=2, padding="same")(x)

    image = k.Input((224, 224, 3))
    x = halved(conv(image, 64, 7, 2))
    x = halved(conv(conv(x, 64, 1), 192, 3))
    for filters in INCEPTION:
        if filters is None:
            x = halved(x)
            continue
        one, before_three, three, before_five, five, pooled = filters
        pool = layers.MaxPooling2D(3, strides=1, padding="same")(x)
        branches = [conv(x, one, 1), conv(conv(x, before_three, 1), three, 3), conv(conv(x, before_five, 1), five, 5)]
        x = layers.Concatenate()([*branches, conv(pool, pooled, 1)])
    x = layers.GlobalAveragePooling2D()(x)
    model = k.Model(image, layers.Dense(1000, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def resnet(k: Any) -> Any:
    model = k.applications.ResNet50(weights=None)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def text_lstm(k: Any) -> Any:
    layers = k.layers
    model = k.Sequential(
        [
            k.Input((STEPS,), dtype="int32"),
            layers.Embedding(VOCABULARY, 128),
            layers.LSTM(128),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy")
    return model


def transformer(k: Any) -> Any:
    layers, width, steps = k.layers, 256, 128
    ids = k.Input((steps,), dtype="int32")
    x = layers.Embedding(VOCABULARY, width)(ids)
    for _ in range(4):
        attended = layers.MultiHeadAttention(4, width // 4)(x, x)
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, attended]))
        inner = layers.Dense(width)(layers.Dense(4 * width, activation="relu")(x))
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, inner]))
    x = layers.GlobalAveragePooling1D()(x)
    model = k.Model(ids, layers.Dense(4, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def neumf(k: Any) -> Any:
    layers = k.layers
    user, item = k.Input((1,), dtype="int32"), k.Input((1,), dtype="int32")

    def embedded(ids: Any, count: int, width: int) -> Any:
        return layers.Flatten()(layers.Embedding(count, width)(ids))

    product = layers.Multiply()([embedded(user, USERS, 64), embedded(item, ITEMS, 64)])
    x = layers.Concatenate()([embedded(user, USERS, 128), embedded(item, ITEMS, 128)])
    for units in (256, 128, 64):
        x = layers.Dense(units, activation="relu")(x)
    x = layers.Concatenate()([product, x])
    model = k.Model([user, item], layers.Dense(1, activation="sigmoid")(x))
    model.compile("adam", "binary_crossentropy")
    return model


def conv_lstm(k: Any) -> Any:
    layers = k.layers
    model = k.Sequential(
        [
            k.Input((8, 64, 64, 1)),
            layers.ConvLSTM2D(16, 3, padding="same", return_sequences=True),
            layers.ConvLSTM2D(16, 3, padding="same"),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )
    model.compile("adam", "mse")
    return model


WORKLOADS = {
    "mlp": Workload("MLP 784-512-512-10 (128)", 128, 51_200, 102_400, _floats(784, classes=10), mlp),
    "lenet": Workload("LeNet-style CNN (128)", 128, 2_560, 12_800, _floats(28, 28, 1, classes=10), lenet),
    "inception": Workload("Inception-v1, 224 (8)", 8, 32, 96, _floats(224, 224, 3, classes=1000), inception),
    "resnet": Workload("ResNet-50, 224 (8)", 8, 24, 48, _floats(224, 224, 3, classes=1000), resnet),
    "lstm": Workload("text LSTM, 20k x 128, 128 units, 200 steps (64)", 64, 1_280, 3_200, _ids(STEPS, VOCABULARY, 2), text_lstm),
    "transformer": Workload("Transformer d256 x4, seq 128 (32)", 32, 128, 512, _ids(128, VOCABULARY, 4), transformer),
    "neumf": Workload("NeuMF, MovieLens-20M sizes (2048)", 2048, 204_800, 1_024_000, _ratings, neumf),
    "convlstm": Workload("ConvLSTM2D x2, 8x64x64 (4)", 4, 8, 64, _frames, conv_lstm),
}  # fmt: skip
