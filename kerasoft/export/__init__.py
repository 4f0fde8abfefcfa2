"""Models as files that score without Spark, without the model's code and (StableHLO) without kerasoft.

`Model.export(path)` writes StableHLO: one zip of JSON, weights as ``.npy`` and the program as `jax.export` serialises it.
`load` here, or twenty lines of JAX and NumPy (docs/howto/export.md), run it. ``format="onnx"`` writes ONNX.
"""

from __future__ import annotations

import importlib

_PLACES = {
    "ExportArchive": "archive",
    "ExportedModel": "reader",
    "export_model": "formats",
    "load": "reader",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str):
    if name in _PLACES:
        return getattr(importlib.import_module(f"kerasoft.export.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'kerasoft.export' has no attribute {name!r}")
