"""kerasoft: a Keras-like API with an autodiff graph compiler, trained on Apache Spark.

`import kerasoft as ks` is cheap: it needs no Spark and does not start JAX. Submodules load when first used.
"""

from __future__ import annotations

import importlib
import pathlib

__version__ = "0.1.0"

# A checkout holds compiler/ and runtime/ beside this folder, a wheel inside it.
if not (pathlib.Path(__file__).parent / "compiler").is_dir():
    __path__.append(str(pathlib.Path(__file__).parent.parent))

_SUBMODULES = (
    "activations",
    "applications",
    "backend",
    "callbacks",
    "compiler",
    "config",
    "data",
    "datasets",
    "distillation",
    "doctor",
    "dtype_policies",
    "errors",
    "export",
    "initializers",
    "constraints",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "ops",
    "optimizers",
    "preprocessing",
    "quantizers",
    "random",
    "regularizers",
    "runtime",
    "saving",
    "training",
    "tree",
    "utils",
    "visualization",
    "wrappers",
)
_NAMES = {
    "DTypePolicy": "dtype_policies",
    "FloatDTypePolicy": "dtype_policies",
    "Function": "models.function",
    "Initializer": "initializers",
    "Input": "layers",
    "InputSpec": "layers.input_spec",
    "KerasTensor": "tensors",
    "Layer": "layers",
    "Loss": "losses",
    "Metric": "metrics",
    "Model": "models",
    "Operation": "tensors",
    "Optimizer": "optimizers",
    "Quantizer": "quantizers",
    "Regularizer": "regularizers",
    "RematScope": "rematerialization",
    "Sequential": "models",
    "StatelessScope": "stateless",
    "SymbolicScope": "stateless",
    "Variable": "variables",
    "device": "places",
    "name_scope": "places",
    "remat": "rematerialization",
    "version": "places",
}
__all__ = [*_NAMES, *_SUBMODULES]


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f"kerasoft.{_NAMES[name]}"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"kerasoft.{name}")
    raise AttributeError(f"module 'kerasoft' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
