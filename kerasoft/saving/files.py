"""`.keras` and `.weights.h5` files.

A `.keras` file is an uncompressed zip of ``metadata.json``, ``config.json`` and ``model.weights.h5``. Reading one runs
nothing that is in it and unpacks nothing to disk.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

from ..errors import SerializationError, UnsafeFileError
from .hdf5 import WeightsReader, WeightsWriter
from .registration import custom_object_scope
from .serialization import deserialize_keras_object, serialize_keras_object, sharing
from .state import read_state, write_state

KERAS_VERSION = "3.15.1"  # of the format written
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LARGEST_CONFIG = 64 << 20  # bytes
LARGEST_EXPANSION = 100


def save_model(model: Any, filepath: Any, overwrite: bool = True, zipped: bool | None = None) -> None:
    """Writes a model to a `.keras` file, whole or not at all.

    Raises:
        SerializationError: another ending, a file that exists while `overwrite` is False, or a part that cannot be saved.

    >>> import kerasoft as ks, tempfile, os
    >>> model = ks.Sequential([ks.Input((2,)), ks.layers.Dense(1)])
    >>> path = os.path.join(tempfile.mkdtemp(), "m.keras")
    >>> model.save(path)
    >>> again = ks.saving.load_model(path)
    >>> bool((again.get_weights()[0] == model.get_weights()[0]).all())
    True
    """
    path = os.fspath(filepath)
    if zipped is False:
        raise SerializationError("kerasoft writes `.keras` files only as one zip file; leave `zipped` out")
    if not path.endswith(".keras"):
        raise SerializationError(
            f"Invalid filepath extension for saving. Please add a `.keras` extension. Received: filepath={path}"
        )
    if not model.built:
        warnings.warn(
            "You are saving a model that has not yet been built. It might not contain any weights yet. Consider building "
            "the model first by calling it on some data.",
            stacklevel=3,
        )
    config = json.dumps(serialize_keras_object(model))
    metadata = {"keras_version": KERAS_VERSION, "date_saved": datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")}
    with _replacing(path, overwrite) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(METADATA, json.dumps(metadata))
        archive.writestr(CONFIG, config)
        with tempfile.TemporaryFile() as weights:
            _write_weights(model, weights)
            weights.seek(0)
            with archive.open(WEIGHTS, "w", force_zip64=True) as member:
                while chunk := weights.read(1 << 20):
                    member.write(chunk)


def save_weights(model: Any, filepath: Any, overwrite: bool = True) -> None:
    """Writes the weights and the optimizer's state to a `.weights.h5` file.

    Raises:
        SerializationError: another ending, or a file that exists while `overwrite` is False.
        NotBuiltError: the model has no weights yet.
    """
    path = os.fspath(filepath)
    if not path.endswith(".weights.h5"):
        raise SerializationError(f"The filename must end in `.weights.h5`. Received: filepath={path}")
    model._need_built("saving")
    with _replacing(path, overwrite) as file:
        _write_weights(model, file)


def _write_weights(model: Any, file: Any) -> None:
    import h5py

    with h5py.File(file, "w") as h5:
        write_state(model, WeightsWriter(h5))


@contextlib.contextmanager
def _replacing(path: str, overwrite: bool) -> Iterator[Any]:
    """A file that takes the place of `path` when it is complete."""
    if os.path.exists(path) and not overwrite:
        raise SerializationError(f"the file {path} exists; give overwrite=True to replace it")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise SerializationError(f"cannot write {path}: there is no folder {folder}")
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".partial")
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


# --- reading ------------------------------------------------------------------------------------------------------


def load_model(filepath: Any, custom_objects: dict | None = None, compile: bool = True, safe_mode: bool = True) -> Any:
    """The model of a `.keras` file that kerasoft or Keras 3 has written.

    Args:
        custom_objects: classes and functions of yours that the model uses, by name.
        compile: whether to compile it as it was, optimizer state included.
        safe_mode: accepted for Keras's sake; nothing of the file is ever run.

    Raises:
        SerializationError: not a `.keras` file, or one that is damaged.
        UnknownNameError: a class that is neither kerasoft's nor registered.
        UnsafeFileError: a lambda as byte code, a path out of the archive, or sizes that do not fit.
    """
    path = os.fspath(filepath)
    if not path.endswith(".keras"):
        raise SerializationError(f"Invalid filename: expected a `.keras` extension. Received: filepath={path}")
    with _archive(path) as archive:
        config = _config(archive, path)
        if not compile:
            config.pop("compile_config", None)
        with custom_object_scope(custom_objects), sharing():
            model = deserialize_keras_object(config)
        if not hasattr(model, "load_own_variables"):
            raise SerializationError(f"{path} holds no model but {type(model).__name__}")
        with _weights(archive, path) as reader:
            read_state(model, reader)
    return model


def load_weights(model: Any, path: str, skip_mismatch: bool = False) -> None:
    """Sets the weights of `model` from a `.weights.h5` or `.keras` file."""
    import h5py

    model._need_built("loading weights into")
    if path.endswith(".keras"):
        with _archive(path) as archive, _weights(archive, path) as reader:
            read_state(model, reader, skip_mismatch)
        return
    if not path.endswith(".weights.h5"):
        raise SerializationError(
            f"File format not supported: filepath={path}. kerasoft reads Keras 3's `.keras` and `.weights.h5` files."
        )
    if not os.path.exists(path):
        raise SerializationError(f"there is no file {path}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise SerializationError(f"{path} is no HDF5 file: {error}") from error
    with file:
        read_state(model, WeightsReader(file), skip_mismatch)


@contextlib.contextmanager
def _archive(path: str) -> Iterator[zipfile.ZipFile]:
    if not os.path.exists(path):
        raise SerializationError(
            f"File not found: filepath={path}. Please ensure the file is an accessible `.keras` zip file."
        )
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise SerializationError(f"{path} is no `.keras` file: {error}") from error
    with archive:
        for member in archive.infolist():
            name = member.filename.replace("\\", "/")
            if name.startswith("/") or ".." in name.split("/") or ":" in name.split("/")[0]:
                raise UnsafeFileError(f"{path} has a member named {member.filename!r}, which leads out of the archive")
            if member.file_size > max(1 << 20, LARGEST_EXPANSION * member.compress_size):
                raise UnsafeFileError(
                    f"{path}: member {member.filename!r} would grow from {member.compress_size:,} to {member.file_size:,} bytes"
                )
        for name in (CONFIG, WEIGHTS):
            if name not in archive.namelist():
                raise SerializationError(f"{path} is no `.keras` file: it has no {name}, only {archive.namelist()}")
        yield archive


def _config(archive: zipfile.ZipFile, path: str) -> dict:
    member = archive.getinfo(CONFIG)
    if member.file_size > LARGEST_CONFIG:
        raise UnsafeFileError(f"{path}: {CONFIG} has {member.file_size:,} bytes, more than {LARGEST_CONFIG:,}")
    try:
        config = json.loads(archive.read(CONFIG))
    except (ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise SerializationError(f"{path}: {CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict) or "class_name" not in config:
        raise SerializationError(f"{path}: {CONFIG} is no model config")
    return config


@contextlib.contextmanager
def _weights(archive: zipfile.ZipFile, path: str) -> Iterator[WeightsReader]:
    import h5py

    with contextlib.ExitStack() as stack:
        member: Any = stack.enter_context(archive.open(WEIGHTS))
        if archive.getinfo(WEIGHTS).compress_type != zipfile.ZIP_STORED:
            member = io.BytesIO(member.read())
        try:
            file = stack.enter_context(h5py.File(member, "r"))
        except OSError as error:
            raise SerializationError(f"{path}: {WEIGHTS} is no HDF5 file: {error}") from error
        yield WeightsReader(file)
