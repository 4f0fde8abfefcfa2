"""Older names of the data sets from files, images and sequences; see `kerasoft.utils`."""

import importlib

_NAMES = ("image_dataset_from_directory", "text_dataset_from_directory", "timeseries_dataset_from_array")
_SUBMODULES = ("image", "sequence")
__all__ = [*_NAMES, *_SUBMODULES]


def __getattr__(name: str):
    if name in _NAMES:
        from .. import utils

        return getattr(utils, name)
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'kerasoft.preprocessing' has no attribute {name!r}")
