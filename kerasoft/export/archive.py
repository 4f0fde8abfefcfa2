"""ExportArchive: several functions with their weights in one StableHLO file."""

from __future__ import annotations

import io
import json
import os
import zipfile
from typing import Any

import numpy as np

from ..errors import SerializationError
from .forward import Forward, signature_of, trace_forward
from .reader import FORMAT, METADATA, VERSION

PLATFORMS = ("cpu", "cuda", "tpu")


class ExportArchive:
    """Functions and the models they use, to be written into one file.

    >>> import kerasoft as ks, tempfile, os
    >>> model = ks.Sequential([ks.Input((2,)), ks.layers.Dense(1, kernel_initializer="ones")])
    >>> archive = ks.export.ExportArchive()
    >>> archive.track(model)
    >>> archive.add_endpoint("double", lambda x: model(x) * 2, [ks.InputSpec(shape=(None, 2), dtype="float32")])
    >>> path = os.path.join(tempfile.mkdtemp(), "m.stablehlo")
    >>> archive.write_out(path, verbose=False)
    >>> ks.export.load(path)([[1.0, 2.0]], endpoint="double").tolist()
    [[6.0]]
    """

    def __init__(self, format: str = "stablehlo"):
        if format != "stablehlo":
            raise SerializationError(f"an ExportArchive of kerasoft is written as 'stablehlo', got format={format!r}")
        self.tracked: list[Any] = []
        self.endpoints: dict[str, Forward] = {}

    def track(self, resource: Any) -> None:
        """Remembers a built layer or model; the weights that endpoints use are written in any case.

        Raises:
            ValueError: it is not built.
        """
        if not getattr(resource, "built", True):
            raise SerializationError(
                "The layer provided has not yet been built. It must be built before export. "
                f"Received: resource={resource}"
            )
        self.tracked.append(resource)

    def add_endpoint(self, name: str, fn: Any, input_signature: Any = None, **kwargs: Any) -> None:
        """Adds `fn`, a model or a function of kerasoft's ops, under `name`.

        Args:
            input_signature: InputSpecs or KerasTensors with None for sizes that vary, one per argument.

        Raises:
            ValueError: a name that is there, an argument that means nothing here, or no signature for a function.
        """
        if name in self.endpoints:
            raise SerializationError(f"Endpoint name '{name}' is already taken.")
        if kwargs:
            raise SerializationError(f"Unrecognized keyword arguments passed to add_endpoint: {list(kwargs)}")
        self.endpoints[name] = forward_of(fn, input_signature)

    def track_and_add_endpoint(self, name: str, resource: Any, input_signature: Any = None, **kwargs: Any) -> None:
        """`track` and `add_endpoint`."""
        self.track(resource)
        self.add_endpoint(name, resource, input_signature, **kwargs)

    def write_out(self, filepath: Any, options: Any = None, verbose: bool = True) -> None:
        """Writes the file.

        Raises:
            ValueError: there is no endpoint.
        """
        if not self.endpoints:
            raise SerializationError("No endpoints have been set yet. Call add_endpoint().")
        path = os.fspath(filepath)
        variables: dict[int, Any] = {}
        entries, programs = {}, {}
        for name, forward in self.endpoints.items():
            used = [forward.params[n.attrs["name"]] for n in forward.graph.params]
            for variable in used:
                variables.setdefault(id(variable), variable)
            order = list(variables)
            entries[name] = {
                "inputs": forward.inputs,
                "outputs": forward.outputs,
                "structure": forward.structure,
                "weights": [order.index(id(variable)) for variable in used],
            }
            programs[name] = program_bytes(forward)
        _write(path, entries, programs, list(variables.values()))
        if verbose:
            print(f"Saved artifact at '{path}'. Endpoints: {', '.join(entries)}.")


def forward_of(fn: Any, input_signature: Any) -> Forward:
    """The graph of a model, or of a function of one or several arguments."""
    if input_signature is None:
        if not hasattr(fn, "built"):
            raise SerializationError("`input_signature` is needed for a function: one InputSpec for each argument")
        return trace_forward(fn, signature_of(fn))
    signature = input_signature
    if isinstance(signature, (list, tuple)) and len(signature) == 1:
        signature = signature[0]
    elif isinstance(signature, (list, tuple)) and not hasattr(fn, "built"):
        return trace_forward(lambda arguments: fn(*arguments), list(signature))
    return trace_forward(fn, signature)


def program_bytes(forward: Forward) -> bytes:
    """The program ``f(weights, *inputs)`` as `jax.export` serialises it, for any sizes where the inputs have None.

    Raises:
        SerializationError: the sizes must be known; says which inputs to fix.
    """
    import jax
    from jax import export

    from ..compiler.lower import function

    graph = forward.graph
    params = list(graph.params)
    by_name = {n.attrs["name"]: n for n in graph.inputs}
    inputs = [by_name.get(entry["name"]) for entry in forward.inputs]
    bound = [*params, *[n for n in inputs if n is not None]]
    run = function(graph, bound)

    def program(weights, *arrays):
        return run(*weights, *[a for a, n in zip(arrays, inputs, strict=True) if n is not None])

    scope = export.SymbolicScope()
    structs = []
    for entry in forward.inputs:
        text = ", ".join(("b" if i == 0 else f"n{i}") if d is None else str(d) for i, d in enumerate(entry["shape"]))
        shape = export.symbolic_shape(text, scope=scope) if text else ()
        structs.append(jax.ShapeDtypeStruct(shape, entry["dtype"]))
    weights = [jax.ShapeDtypeStruct(n.shape, n.dtype) for n in params]
    try:
        made = export.export(jax.jit(program), platforms=PLATFORMS)(weights, *structs)
    except Exception as error:
        first = (str(error).strip().splitlines() or [repr(error)])[0]
        raise SerializationError(
            f"the model cannot be exported for inputs {[(e['name'], e['shape']) for e in forward.inputs]}: {first}\n"
            "Give `input_signature` with fixed sizes in place of None."
        ) from error
    return bytes(made.serialize())


def _write(path: str, entries: dict, programs: dict[str, bytes], variables: list) -> None:
    import jax

    from .. import __version__
    from ..saving.files import replacing

    values = [v.numpy() for v in variables]
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "kerasoft": __version__,
        "jax": jax.__version__,
        "platforms": list(PLATFORMS),
        "endpoints": entries,
        "weights": [
            {"name": v.path, "shape": list(x.shape), "dtype": x.dtype.name}
            for v, x in zip(variables, values, strict=True)
        ],
    }
    with replacing(path, True) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(METADATA, json.dumps(metadata, indent=1))
        for name, blob in programs.items():
            archive.writestr(f"{name}.stablehlo", blob)
        for i, value in enumerate(values):
            buffer = io.BytesIO()
            np.save(buffer, value.view(np.uint16) if value.dtype.name == "bfloat16" else value, allow_pickle=False)
            archive.writestr(f"weights/{i}.npy", buffer.getbuffer())
