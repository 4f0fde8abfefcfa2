"""Quantisation: floats as small integers and scales, and the settings of `Model.quantize`."""

from __future__ import annotations

import inspect
from typing import Any

from ..naming import to_snake_case
from .configs import (
    AWQConfig,
    Float8QuantizationConfig,
    GPTQConfig,
    Int4QuantizationConfig,
    Int8QuantizationConfig,
    QuantizationConfig,
)
from .fake import (
    compute_float8_amax_history,
    compute_float8_scale,
    fake_quant_with_min_max_vars,
    quantize_and_dequantize,
)
from .graph_layer import QuantizedGraph
from .groups import abs_max_quantize_grouped_with_zero_point
from .maximum import AbsMaxQuantizer, Quantizer, abs_max_quantize
from .packing import pack_int4, unpack_int4
from .post_training import post_training
from .report import LayerReport, QuantizationReport

_CLASSES = (
    Quantizer, AbsMaxQuantizer, QuantizationConfig, Int8QuantizationConfig, Int4QuantizationConfig,
    Float8QuantizationConfig, AWQConfig, GPTQConfig,
)  # fmt: skip
_NAMES = {name: cls for cls in _CLASSES for name in (cls.__name__, to_snake_case(cls.__name__))}


def serialize(initializer: Any) -> Any:
    """The config of a quantizer."""
    from ..saving.serialization import serialize_keras_object

    return serialize_keras_object(initializer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """The quantizer of a config."""
    from ..saving.serialization import deserialize_keras_object

    return deserialize_keras_object(config, custom_objects=custom_objects)


def get(identifier: Any, **kwargs: Any) -> Any:
    """A quantizer from a quantizer, a name or a config; None stays None.

    Raises:
        ValueError: nothing is known under this name.

    >>> get("abs_max_quantizer").output_dtype
    'int8'
    """
    if identifier is None:
        return None
    found = identifier
    if isinstance(identifier, dict):
        found = deserialize(identifier)
    elif isinstance(identifier, str):
        found = _NAMES.get(identifier)
    if inspect.isclass(found):
        found = found(**kwargs)
    if not callable(found) and not isinstance(found, QuantizationConfig):
        raise ValueError(f"Could not interpret quantizer identifier: {identifier}")
    return found


__all__ = [
    "AWQConfig",
    "AbsMaxQuantizer",
    "Float8QuantizationConfig",
    "GPTQConfig",
    "Int4QuantizationConfig",
    "Int8QuantizationConfig",
    "LayerReport",
    "QuantizationConfig",
    "QuantizationReport",
    "QuantizedGraph",
    "Quantizer",
    "abs_max_quantize",
    "abs_max_quantize_grouped_with_zero_point",
    "compute_float8_amax_history",
    "compute_float8_scale",
    "deserialize",
    "fake_quant_with_min_max_vars",
    "get",
    "pack_int4",
    "post_training",
    "quantize_and_dequantize",
    "serialize",
    "unpack_int4",
]
