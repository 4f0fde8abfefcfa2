"""Models."""

from ..layers.input_layer import Input
from .cloning import clone_model
from .functional import Functional
from .model import Model, model_from_json
from .sequential import Sequential

__all__ = [
    "Functional",
    "Input",
    "Model",
    "Sequential",
    "clone_model",
    "load_model",
    "model_from_json",
    "save_model",
]


def __getattr__(name: str):
    if name in ("load_model", "save_model"):
        from ..saving import files

        return getattr(files, name)
    raise AttributeError(f"module 'kerasoft.models' has no attribute {name!r}")
