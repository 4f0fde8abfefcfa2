"""Executables kept on disk whole: neither JAX's tracing nor its lowering happens when one is read.

JAX's own cache holds what XLA made of a lowered program, so that a program must be lowered before it is found. Here the name
of the file is the `fingerprint` of what the program is made of. The file: one line that says what it is, SHA-256 of the rest,
one line of JSON (the results' types and tree), XLA's executable. It is written whole and moved into place, so that processes
may write at the same time. A file that is damaged, or that others may write to, is ignored with a warning and written anew.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import stat
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax._src import config, core, stages
from jax._src.interpreters import pxla
from jax._src.lib import xla_client
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import SingleDeviceSharding
from jax.tree_util import PyTreeDef, default_registry

from .compile_cache import WORTH_S, count_loaded, use_default_cache

_MAGIC = b"kerasoft executable 1\n"


def path(name: str) -> pathlib.Path | None:
    """The file of the executable with this fingerprint; None if nothing is to be kept."""
    folder = use_default_cache()
    return None if folder is None else pathlib.Path(folder) / f"step-{name}"


def usable(arguments: Sequence[Any]) -> bool:
    """Whether a call with these arguments may run an executable that is kept: all on this process's first device."""
    if use_default_cache() is None:
        return False
    first = {jax.devices()[0]}
    return all(a.devices() == first for a in jax.tree.leaves(arguments) if isinstance(a, jax.Array))


def kept_or_made(name: str, jitted: Any, arguments: Sequence[Any]) -> Any:
    """The compiled function for these arguments: read from disk, or compiled and, if tracing and all took long, written.

    Args:
        name: its fingerprint. jitted: of `jax.jit`, with ``keep_unused=True``.
    """
    file = path(name)
    if file is None:
        return jitted
    found = _read(file, arguments)
    if found is not None:
        count_loaded()
        return found
    begin = time.perf_counter()
    lowered = jitted.lower(*arguments)
    with _without_jax_cache():  # what JAX read from its own cannot be written again
        made = lowered.compile()
    if time.perf_counter() - begin >= WORTH_S:
        _write(file, made)
    return made


@contextlib.contextmanager
def _without_jax_cache() -> Iterator[None]:
    compilation_cache.reset_cache()  # it looks at its settings once only
    try:
        with config.enable_compilation_cache(False):
            yield
    finally:
        compilation_cache.reset_cache()


# --- the file --------------------------------------------------------------------------------------------------------


def _write(file: pathlib.Path, made: Any) -> None:
    """Keeps an executable; one that cannot be serialised, or a folder that cannot be written to, costs a warning."""
    inner = made._executable._unloaded_executable
    if inner.mut or inner.host_callbacks or inner.ordered_effects or inner.unordered_effects or made._params.const_args:
        return  # it holds what lives in this process only
    outputs = [[t.dtype.name, list(t.shape), bool(t.weak_type)] for t in inner.output_avals]
    tree = base64.b64encode(made.out_tree.serialize_using_proto()).decode()
    head = json.dumps({"name": inner.name, "outputs": outputs, "tree": tree}).encode()
    try:
        body = head + b"\n" + inner.backend.serialize_executable(inner.xla_executable)
        descriptor, part = tempfile.mkstemp(dir=file.parent, prefix="step-", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(_MAGIC + hashlib.sha256(body).digest() + body)
            os.replace(part, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
    except (OSError, jax.errors.JaxRuntimeError) as error:
        warnings.warn(f"the compiled step cannot be kept in {file.parent}: {error}", stacklevel=2)


def _read(file: pathlib.Path, arguments: Sequence[Any]) -> Any:
    """The compiled function in `file`; None if there is none, or none that may be used."""
    try:
        with open(file, "rb") as opened:
            status = os.fstat(opened.fileno())
            if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ValueError("others than its owner can write to it, or it is not yours")
            data = memoryview(opened.read())
        start = len(_MAGIC) + 32
        if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
            raise ValueError("it is damaged, or of another format")
        end = bytes(data[start : start + (1 << 20)]).index(b"\n") + start
        return _loaded(json.loads(bytes(data[start:end])), bytes(data[end + 1 :]), arguments)
    except FileNotFoundError:
        return None
    except Exception as error:  # XLA has errors of its own for what it cannot load
        warnings.warn(f"ignoring the compiled step in {file}: {error}. It is compiled anew.", stacklevel=2)
        return None


def _loaded(head: dict[str, Any], code: bytes, arguments: Sequence[Any]) -> Any:
    """An executable as JAX's `Compiled`, which dispatches as fast as `jax.jit`."""
    device = jax.devices()[0]
    devices = xla_client.DeviceList((device,))
    executable = device.client.deserialize_executable(code, executable_devices=devices)
    leaves, in_tree = jax.tree.flatten((tuple(arguments), {}))
    inputs = [core.shaped_abstractify(leaf) for leaf in leaves]
    outputs = [core.ShapedArray(tuple(s), np.dtype(d), weak_type=w) for d, s, w in head["outputs"]]
    here = SingleDeviceSharding(device)
    unloaded = pxla.UnloadedMeshExecutable(
        xla_executable=executable, device_list=devices, backend=device.client, name=head["name"],
        input_avals=inputs, input_shardings=[here] * len(inputs),
        output_avals=outputs, output_shardings=[here] * len(outputs),
        xla_in_layouts=[None] * len(inputs), dispatch_in_layouts=[None] * len(inputs), xla_out_layouts=[None] * len(outputs),
        kept_var_idx=set(range(len(inputs))), committed=False, unordered_effects=[], ordered_effects=[],
        keepalive=[], host_callbacks=[], mut=None, all_args_info=None, pgle_profiler=None,
    )  # fmt: skip
    given = jax.tree.unflatten(in_tree, [stages.ArgInfo(t, False) for t in inputs])
    out_tree = PyTreeDef.deserialize_using_proto(default_registry, base64.b64decode(head["tree"]))
    return stages.Compiled(unloaded.load(), [], given, out_tree, no_kwargs=True)
