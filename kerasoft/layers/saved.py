"""Configs of layers inside layers: a wrapper's config holds that of the layer it wraps."""

from __future__ import annotations

from typing import Any


def to_saved(layer: Any) -> Any:
    """The config from which `from_saved` makes an equal layer."""
    from ..saving.serialization import serialize_keras_object

    return serialize_keras_object(layer)


def from_saved(config: Any, custom_objects: dict | None = None) -> Any:
    """The layer of a config; a layer stays as it is."""
    from ..saving.serialization import deserialize_keras_object

    return deserialize_keras_object(config, custom_objects) if isinstance(config, dict) else config
