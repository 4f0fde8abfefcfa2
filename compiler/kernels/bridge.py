"""The native libraries: found, loaded and registered with XLA once a process, when first asked for.

`kerasoft.compiler.kernels.lib` holds one library for each instruction set, of which the best that this processor has is
loaded. "native" are kernels of our own; "onednn" calls oneDNN (the package onednn-cpu-gomp); "mkl" calls MKL (the package
mkl, which kerasoft does not ask for) and is loaded only when it is tried or forced. Each exports a table of XLA FFI
handlers, so none needs another, and without them everything runs on XLA.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import pathlib
import platform
import warnings

import jax

from . import processor
from .sources import fingerprint

LIBRARIES = ("native", "onednn")  # what every host of a job has
_FOLDER = pathlib.Path(__file__).resolve().parent / "lib"
_OFF = "KERASOFT_NATIVE"  # "0": as if no library were there


class _Target(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("handler", ctypes.c_void_p)]


@functools.cache
def cpu_level() -> str | None:
    """The instruction set that this process may use: "v4" (AVX-512), "v3" (AVX2), or None. KERASOFT_ISA lowers it."""
    if platform.machine() != "x86_64":
        return None
    cap = os.environ.get("KERASOFT_ISA")
    levels = [level for level in processor.levels() if cap is None or level <= cap]
    return levels[0] if levels else None


@functools.cache
def loaded(library: str) -> bool:
    """Whether `library` ("native", "onednn") is there; loads and registers it the first time."""
    return _reason_missing(library) is None


def missing(library: str) -> str | None:
    """Why `library` cannot be used here, as a sentence; None if it can."""
    return _reason_missing(library)


def path(library: str) -> str:
    """The file of `library`; it need not exist."""
    return os.fspath(_FOLDER / f"{library}_{cpu_level()}.so")


def signature() -> tuple[str, ...]:
    """What is loaded, for cache keys and programs, e.g. ("native-v4", "onednn-v4-3.2.0")."""
    level = cpu_level()
    return tuple(
        f"{name}-{level}" + (f"-{onednn_version()}" if name == "onednn" else "") for name in LIBRARIES if loaded(name)
    )


def require(library: str) -> None:
    """Says once that `library` is missing and what that costs."""
    if not loaded(library):
        _warn(library)


def keep_large_blocks() -> bool:
    """Large blocks of memory of jaxlib are kept when freed, from now on (`cpp/large_blocks.cpp`); whether it could be done."""
    if not loaded("native"):
        return False
    return bool(_handles["native"].kerasoft_keep_large_blocks(b"/libjax_common.so"))


def large_blocks() -> tuple[int, int]:
    """Bytes of large blocks in use, and bytes kept for later."""
    taken, kept = ctypes.c_uint64(), ctypes.c_uint64()
    _handles["native"].kerasoft_large_blocks(ctypes.byref(taken), ctypes.byref(kept))
    return taken.value, kept.value


@functools.cache
def _warn(library: str) -> None:
    if os.environ.get(_OFF) != "0":
        warnings.warn(f"{_reason_missing(library)} kerasoft computes with XLA alone, which is slower.", stacklevel=3)


@functools.cache
def onednn_version() -> str:
    """The version of the oneDNN that is loaded, "" without one."""
    if not loaded("onednn"):
        return ""
    version = _dnnl().dnnl_version
    version.restype = ctypes.POINTER(ctypes.c_int * 3)
    return ".".join(map(str, version().contents))


@functools.cache
def _reason_missing(library: str) -> str | None:
    if os.environ.get(_OFF) == "0":
        return f"{_OFF}=0 turns the native kernels off."
    level = cpu_level()
    if level is None:
        return "There are no native kernels for this processor (they need x86-64 with AVX2)."
    path = _FOLDER / f"{library}_{level}.so"
    if not path.exists():
        return f"The library {path.name} was not built when kerasoft was installed (see setup.py)."
    try:
        if library == "onednn":
            _dnnl()
        handle = ctypes.CDLL(os.fspath(path))
        if _is_stale(handle):
            return f"The library {path.name} was built from other sources; run: python setup.py build_ext --inplace."
        if library == "mkl" and (lacking := _hand_over(handle, _mkl())):
            return f"The installed MKL {mkl_version()} has no function {lacking}."
        table = getattr(handle, f"kerasoft_{library}_targets")
    except (OSError, AttributeError) as error:
        return f"The library {path.name} cannot be loaded: {error}."
    table.restype = ctypes.POINTER(_Target)
    targets = table()
    i = 0
    while targets[i].name:
        name = f"kerasoft.{targets[i].name.decode()}"
        handler = ctypes.pythonapi.PyCapsule_New
        handler.restype, handler.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        jax.ffi.register_ffi_target(name, handler(targets[i].handler, None, None), platform="cpu")
        _targets.append(name)
        i += 1
    _handles[library] = handle
    return None


def _is_stale(handle: ctypes.CDLL) -> bool:
    """Whether the checkout has other C++ sources than those the library was built from: it may lack their handlers."""
    made = handle.kerasoft_sources
    made.restype = ctypes.c_char_p
    now = fingerprint()
    return now is not None and made().decode() != now


_targets: list[str] = []
_handles: dict[str, ctypes.CDLL] = {}


def targets() -> tuple[str, ...]:
    """Names of the XLA custom calls that the loaded libraries offer."""
    for library in LIBRARIES:
        loaded(library)
    return tuple(_targets)


@functools.cache
def _dnnl() -> ctypes.CDLL:
    """libdnnl, its symbols open to the library that calls it."""
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # its idle threads must not take cores from XLA's
    return ctypes.CDLL(_dnnl_path(), mode=ctypes.RTLD_GLOBAL)


def _dnnl_path() -> str:
    try:
        for file in importlib.metadata.files("onednn-cpu-gomp") or ():
            if file.name == "libdnnl.so.3":
                return os.path.realpath(file.locate())
    except importlib.metadata.PackageNotFoundError:
        pass
    return "libdnnl.so.3"


@functools.cache
def _mkl() -> ctypes.CDLL:
    """libmkl_rt with 32-bit integers and no threads of its own."""
    name = "libmkl_rt.so.3"
    try:
        for file in importlib.metadata.files("mkl") or ():
            if file.name.startswith("libmkl_rt.so."):
                name = os.path.realpath(file.locate())
    except importlib.metadata.PackageNotFoundError:
        pass
    library = ctypes.CDLL(name)
    library.MKL_Set_Interface_Layer(0)  # LP64
    library.MKL_Set_Threading_Layer(1)  # sequential
    return library


def _hand_over(handle: ctypes.CDLL, mkl: ctypes.CDLL) -> str:
    """Gives MKL's functions to our library; the name of one that is not there, or ""."""
    use = handle.kerasoft_mkl_use
    use.restype, use.argtypes = ctypes.c_char_p, (ctypes.c_void_p,)
    return (use(mkl._handle) or b"").decode()


@functools.cache
def mkl_multiplies_bytes() -> bool:
    """Whether MKL is there and its products of 8-bit integers are exact on this processor."""
    if not loaded("mkl"):
        return False
    exact = _handles["mkl"].kerasoft_mkl_bytes_are_exact
    exact.restype = ctypes.c_bool
    return bool(exact())


def mkl_version() -> str:
    """The version of the installed package mkl, "" without one."""
    try:
        return importlib.metadata.version("mkl")
    except importlib.metadata.PackageNotFoundError:
        return ""
