"""Shapes as they come from users and from JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensors import KerasTensor


def is_shape(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(s is None or isinstance(s, (int, np.integer)) for s in value)


def shape_tuple(value: Any) -> Any:
    """Shapes read from JSON, as tuples again."""
    if value is None or is_shape(value):
        return None if value is None else tuple(value)
    if isinstance(value, dict):
        return {k: shape_tuple(v) for k, v in value.items()}
    return [shape_tuple(v) for v in value] if isinstance(value, (list, tuple)) else value


def specs(shapes: Any, dtype: str) -> Any:
    """KerasTensors for shapes in any structure."""
    if is_shape(shapes):
        return KerasTensor(tuple(shapes), dtype)
    if isinstance(shapes, dict):
        return {key: specs(shape, dtype) for key, shape in shapes.items()}
    return type(shapes)([specs(shape, dtype) for shape in shapes])
