"""The op families. An op's lowering, gradient and checks stand together in its family's file.

Importing this package fills `registry.REGISTRY`.
"""

from . import (
    activations,
    arithmetic,
    collective,
    convolution,
    creation,
    indexing,
    linalg,
    pooling,
    reduce,
    registry,
    shape,
)

__all__ = [
    "activations",
    "arithmetic",
    "collective",
    "convolution",
    "creation",
    "indexing",
    "linalg",
    "pooling",
    "reduce",
    "registry",
    "shape",
]
