"""Configs, `.keras` files and `.weights.h5` files, in Keras 3's formats."""

from .registration import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)
from .serialization import deserialize_keras_object, serialize_keras_object

_FILES = ("load_model", "load_weights", "save_model", "save_weights")


def __getattr__(name: str):
    if name in _FILES:
        from . import files

        return getattr(files, name)
    if name == "KerasFileEditor":
        from .editor import KerasFileEditor

        return KerasFileEditor
    raise AttributeError(f"module 'kerasoft.saving' has no attribute {name!r}")


__all__ = [
    "CustomObjectScope",
    "KerasFileEditor",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "load_weights",
    "register_keras_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]
