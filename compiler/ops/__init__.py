"""The op families. An op's lowering, gradient and checks stand together in its family's file.

Importing this package fills `registry.REGISTRY`.
"""

from . import (
    activations,
    arithmetic,
    attention,
    barrier,
    collective,
    control,
    conv_lstm,
    convolution,
    creation,
    dense,
    indexing,
    layer_normalization,
    linalg,
    losses,
    normalization,
    pooling,
    quantised,
    random,
    recurrent,
    reduce,
    registry,
    shape,
)

__all__ = [
    "activations",
    "arithmetic",
    "attention",
    "barrier",
    "collective",
    "control",
    "conv_lstm",
    "convolution",
    "creation",
    "dense",
    "indexing",
    "layer_normalization",
    "linalg",
    "losses",
    "normalization",
    "pooling",
    "quantised",
    "random",
    "recurrent",
    "reduce",
    "registry",
    "shape",
]
