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

coming: dict[pathlib.Path, Any] = {}  # what `opened` will give of files that are being read (`ahead`)
used: list[str] | None = None  # fingerprints of executables that were found or kept, if somebody wants to know


def is_name(text: str) -> bool:
    """Whether the text is such as `fingerprint` gives."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def path(name: str, kind: str = "step") -> pathlib.Path | None:
    """The file of the executable with this fingerprint; None if nothing is to be kept."""
    folder = use_default_cache()
    return None if folder is None else pathlib.Path(folder) / f"{kind}-{name}"


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
    found = kept(file, arguments)
    if found is not None:
        return found
    begin = time.perf_counter()
    lowered = jitted.lower(*arguments)
    with _without_jax_cache():  # what JAX read from its own cannot be written again
        made = lowered.compile()
    if time.perf_counter() - begin >= WORTH_S:
        _write(file, made)
    return made


def kept(file: pathlib.Path, arguments: Sequence[Any]) -> Any:
    """The compiled function in `file`; None if there is none, or none that may be used."""
    try:
        ahead = coming.pop(file, None)
        head, executable = opened(file) if ahead is None or ahead.cancel() else ahead.result()
        found = _loaded(head, executable, arguments)
    except FileNotFoundError:
        return None
    except Exception as error:  # XLA has errors of its own for what it cannot load
        warnings.warn(f"ignoring the compiled step in {file}: {error}. It is compiled anew.", stacklevel=2)
        return None
    count_loaded()
    _note(file)
    return found


def _note(file: pathlib.Path) -> None:
    if used is not None:
        used.append(file.name.removeprefix("step-"))


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
        write_whole(file, _MAGIC, head + b"\n" + inner.backend.serialize_executable(inner.xla_executable))
        _note(file)
    except (OSError, jax.errors.JaxRuntimeError) as error:
        warnings.warn(f"the compiled step cannot be kept in {file.parent}: {error}", stacklevel=2)


def write_whole(file: pathlib.Path, magic: bytes, body: bytes) -> None:
    """Writes what `read_whole` reads.

    Raises:
        OSError: the folder cannot be written to.
    """
    descriptor, part = tempfile.mkstemp(dir=file.parent, prefix=file.name[:5], suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(magic + hashlib.sha256(body).digest() + body)
        os.replace(part, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def read_whole(file: pathlib.Path, magic: bytes) -> memoryview:
    """The body of a file that `write_whole` wrote.

    Raises:
        OSError: there is none. ValueError: it is damaged, or somebody else may have written it.
    """
    with open(file, "rb") as opened:
        status = os.fstat(opened.fileno())
        if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError("others than its owner can write to it, or it is not yours")
        data = memoryview(opened.read())
    start = len(magic) + 32
    if data[: len(magic)] != magic or hashlib.sha256(data[start:]).digest() != data[len(magic) : start]:
        raise ValueError("it is damaged, or of another format")
    return data[start:]


def opened(file: pathlib.Path) -> tuple[dict[str, Any], Any]:
    """What `_write` wrote of the results, and XLA's executable.

    Raises:
        FileNotFoundError; ValueError: see `read_whole`. Whatever XLA raises for what it cannot load.
    """
    data = read_whole(file, _MAGIC)
    end = bytes(data[: 1 << 20]).index(b"\n")
    device = jax.devices()[0]
    devices = xla_client.DeviceList((device,))
    executable = device.client.deserialize_executable(bytes(data[end + 1 :]), executable_devices=devices)
    return json.loads(bytes(data[:end])), executable


def _loaded(head: dict[str, Any], executable: Any, arguments: Sequence[Any]) -> Any:
    """An executable as JAX's `Compiled`, which dispatches as fast as `jax.jit`."""
    device = jax.devices()[0]
    devices = xla_client.DeviceList((device,))
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
