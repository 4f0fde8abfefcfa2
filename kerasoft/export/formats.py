"""`Model.export`: which format, and its arguments."""

from __future__ import annotations

import os
from typing import Any

from ..errors import SerializationError
from ..models.host_part import has_host_layers
from .archive import ExportArchive, forward_of

FORMATS = ("stablehlo", "onnx")
_ELSEWHERE = {
    "tf_saved_model": "TensorFlow",
    "litert": "LiteRT",
    "tflite": "LiteRT",
    "openvino": "OpenVINO",
    "torch": "PyTorch",
}


def export_model(
    model: Any,
    filepath: Any,
    format: str = "stablehlo",
    verbose: bool | None = None,
    input_signature: Any = None,
    **kwargs: Any,
) -> None:
    """Writes a model for scoring elsewhere; see `Model.export`."""
    if format in _ELSEWHERE:
        raise SerializationError(
            f"kerasoft does not write format='{format}', which needs {_ELSEWHERE[format]}. Use format='stablehlo' (one file "
            "that JAX alone can run) or format='onnx' (ONNX Runtime, and converters to most others), or save a `.keras` "
            f"file, load it in Keras 3 and export it there. Received: format={format}"
        )
    if format not in FORMATS:
        raise SerializationError(f"Unrecognized format={format}. Supported formats are: {list(FORMATS)}.")
    model._need_built("exporting")
    if has_host_layers(model):
        raise SerializationError(
            f"{type(model).__name__} '{model.name}' begins with layers that run on the host (text, lookups, hashes), which no "
            "exported program can hold. Export a model of the layers behind them, and save this one as a `.keras` file."
        )
    if format == "stablehlo":
        if kwargs:
            raise SerializationError(f"Unrecognized keyword arguments passed to export: {list(kwargs)}")
        archive = ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", model, input_signature)
        archive.write_out(filepath, verbose=True if verbose is None else verbose)
        return
    from .onnx import write_onnx

    path = os.fspath(filepath)
    write_onnx(forward_of(model, input_signature), path, name=model.name, **kwargs)
    if verbose is not False:
        print(f"Saved artifact at '{path}'.")
