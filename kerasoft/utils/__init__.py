"""What belongs to no layer: data on disk as batches, labels, sequences, images, downloads, seeds, pictures of models."""

from __future__ import annotations

import importlib

_SAVING = (
    "CustomObjectScope", "custom_object_scope", "deserialize_keras_object", "get_custom_objects",
    "get_registered_name", "get_registered_object", "register_keras_serializable", "serialize_keras_object",
)  # fmt: skip
_NAMES = {
    "Config": "configuration",
    "FeatureSpace": "kerasoft.layers.preprocessing.feature_space",
    "Progbar": "progress",
    "PyDataset": "py_dataset",
    "Sequence": "py_dataset",
    "array_to_img": "images",
    "audio_dataset_from_directory": "audio_files",
    "clear_session": "kerasoft.naming",
    "disable_interactive_logging": "progress",
    "enable_interactive_logging": "progress",
    "get_file": "downloads",
    "get_source_inputs": "graphs",
    "image_dataset_from_directory": "image_files",
    "img_to_array": "images",
    "is_interactive_logging_enabled": "progress",
    "is_keras_tensor": "graphs",
    "load_img": "images",
    "model_to_dot": "drawing",
    "normalize": "labels",
    "pack_x_y_sample_weight": "packing",
    "pad_sequences": "sequences",
    "plot_model": "drawing",
    "save_img": "images",
    "set_random_seed": "seeds",
    "split_dataset": "splitting",
    "standardize_dtype": "packing",
    "text_dataset_from_directory": "text_files",
    "timeseries_dataset_from_array": "timeseries",
    "to_categorical": "labels",
    "unpack_x_y_sample_weight": "packing",
} | dict.fromkeys(_SAVING, "kerasoft.saving")
_SUBMODULES = ("bounding_boxes", "legacy")

__all__ = sorted([*_NAMES, *_SUBMODULES])


def __getattr__(name: str):
    if name in _NAMES:
        module = _NAMES[name]
        module = module if module.startswith("kerasoft.") else f"{__name__}.{module}"
        return getattr(importlib.import_module(module), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'kerasoft.utils' has no attribute {name!r}")


def __dir__():
    return __all__
