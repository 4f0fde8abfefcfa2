"""Saving and loading models and weights: which format a path means, and Keras's arguments.

``.keras`` is a zip or a folder (`archive.py`), ``.weights.h5`` one HDF5 file, ``.weights.json`` several (`sharded.py`),
``.h5`` and ``.hdf5`` Keras's legacy format (`legacy.py`). Reading runs nothing that is in a file.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from ..errors import SerializationError
from . import archive, legacy
from .hdf5 import WeightsReader, WeightsWriter, opened
from .registration import custom_object_scope
from .serialization import deserialize_keras_object, safe_mode_scope, sharing
from .sharded import ShardedWriter, sharded_reader
from .state import read_state, write_state


def save_model(model: Any, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
    """Writes a model to a `.keras` file (whole or not at all), to a folder, or to a legacy `.h5` file.

    Args:
        filepath: ends in ``.keras`` or ``.h5``; a folder with ``zipped=False``; or an open binary file.
        zipped: False writes the parts of a `.keras` file into the folder `filepath`.

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
    include_optimizer = kwargs.pop("include_optimizer", True)
    save_format = kwargs.pop("save_format", None)
    if hasattr(filepath, "write"):
        archive.write_zip(model, filepath)
        return
    path = os.fspath(filepath)
    if kwargs:
        raise SerializationError(f"The following argument(s) are not supported: {list(kwargs)}")
    if save_format and not path.endswith((".keras", *legacy.ENDINGS)):
        raise SerializationError(
            "The `save_format` argument is deprecated in Keras 3. Please remove this argument and pass a file path with "
            f"either `.keras` or `.h5` extension. Received: save_format={save_format}"
        )
    if zipped is False and path.endswith(".keras"):
        raise SerializationError(
            "When using `zipped=False`, the filepath should not end in `.keras`: it is a folder. "
            f"Received: filepath={path}"
        )
    if zipped is not False and not path.endswith((".keras", *legacy.ENDINGS)):
        raise SerializationError(
            "Invalid filepath extension for saving. Please add either a `.keras` extension for the native Keras format "
            "(recommended) or a `.h5` extension. Use `model.export(filepath)` for a file that scores without this "
            f"library. Received: filepath={path}."
        )
    if not model.built:
        warnings.warn(
            "You are saving a model that has not yet been built. It might not contain any weights yet. Consider building "
            "the model first by calling it on some data.",
            stacklevel=3,
        )
    if zipped is False:
        archive.write_folder(model, path, overwrite)
    elif path.endswith(".keras"):
        with replacing(path, overwrite) as file:
            archive.write_zip(model, file)
    else:
        import h5py

        with replacing(path, overwrite) as file, h5py.File(file, "w") as h5:
            legacy.save_legacy_model(model, h5, include_optimizer)


def save_weights(
    model: Any, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None, **kwargs: Any
) -> None:
    """Writes the weights and the optimizer's state to a `.weights.h5` file, or to several with a `.weights.json` list.

    Args:
        max_shard_size: largest size of a file in GB; the path then ends in ``.weights.json``.
        objects_to_skip: layers to leave out.

    Raises:
        SerializationError: another ending, or a file that exists while `overwrite` is False.
        NotBuiltError: the model has no weights yet.
    """
    import h5py

    path = os.fspath(filepath)
    skipped = kwargs.pop("objects_to_skip", None)
    if kwargs:
        raise SerializationError(f"Invalid keyword arguments: {kwargs}")
    if max_shard_size is None and not path.endswith(".weights.h5"):
        raise SerializationError(f"The filename must end in `.weights.h5`. Received: filepath={path}")
    if max_shard_size is not None and not path.endswith(("weights.h5", "weights.json")):
        raise SerializationError(
            f"The filename must end in `.weights.json` when `max_shard_size` is specified. Received: filepath={path}"
        )
    model._need_built("saving")
    if max_shard_size is None:
        with replacing(path, overwrite) as file, h5py.File(file, "w") as h5:
            write_state(model, WeightsWriter(h5), skipped=skipped)
        return
    if path.endswith(".h5"):
        renamed = path.removesuffix(".h5") + ".json"
        warnings.warn(
            "Saving sharded weights requires `*.json` as the extension. The original path: "
            f"{path} will be renamed to {renamed}.",
            stacklevel=3,
        )
        path = renamed
    if os.path.exists(path) and not overwrite:
        raise SerializationError(f"the file {path} exists; give overwrite=True to replace it")
    writer = ShardedWriter(path, float(max_shard_size) * 1024**3)
    try:
        write_state(model, writer, skipped=skipped)
    finally:
        writer.close()


@contextlib.contextmanager
def replacing(path: str, overwrite: bool) -> Iterator[Any]:
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
    """The model of a `.keras` file or folder, or of a legacy `.h5` file, of kerasoft or Keras.

    Args:
        custom_objects: classes and functions of yours that the model uses, by name.
        compile: whether to compile it as it was, optimizer state included.
        safe_mode: False also lets Lambda layers of a `.keras` file that you trust bring their own code.

    Raises:
        SerializationError: not such a file, or one that is damaged.
        UnknownNameError: a class that is neither kerasoft's nor registered.
        UnsafeFileError: a lambda as byte code, a path out of the archive, or sizes that do not fit.
    """
    path = filepath if hasattr(filepath, "read") else os.fspath(filepath)
    if path is filepath and not isinstance(path, str):
        return _load_archive(path, custom_objects, compile, safe_mode)
    is_folder = os.path.isdir(path) and os.path.exists(os.path.join(path, archive.CONFIG))
    if path.endswith(legacy.ENDINGS) and not is_folder:
        with safe_mode_scope(True):
            return legacy.load_legacy_model(path, custom_objects, compile)
    if not path.endswith(".keras") and not is_folder:
        raise SerializationError(
            f"File format not supported: filepath={path}. kerasoft reads Keras 3's `.keras` files and folders and legacy H5 "
            "format files (`.h5` extension)."
        )
    return _load_archive(path, custom_objects, compile, safe_mode)


def _load_archive(path: Any, custom_objects: dict | None, compile: bool, safe_mode: bool) -> Any:
    """The model of a `.keras` file, open binary file or folder."""
    with archive.opened_archive(path) as parts:
        config = parts.config()
        if not compile:
            config.pop("compile_config", None)
        with custom_object_scope(custom_objects), sharing(), safe_mode_scope(safe_mode):
            model = deserialize_keras_object(config)
        if not hasattr(model, "load_own_variables"):
            raise SerializationError(f"{path} holds no model but {type(model).__name__}")
        with parts.weights() as reader, parts.assets() as assets:
            read_state(model, reader, assets=assets)
    return model


def load_weights(model: Any, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
    """Sets the weights of `model` from a `.weights.h5`, `.weights.json`, `.keras` or legacy `.h5` file.

    Args:
        skip_mismatch: leave out (with a warning) layers whose weights have other numbers or shapes.
        objects_to_skip: layers to leave as they are (`.weights.h5` and `.weights.json`).
        by_name: find layers by their names, not by their order (legacy `.h5`).

    Raises:
        ValueError: a layer does not fit, another ending, or an argument that the format does not take.
    """
    path = os.fspath(filepath)
    skipped, by_name = kwargs.pop("objects_to_skip", None), kwargs.pop("by_name", None)
    if kwargs:
        raise SerializationError(f"Invalid keyword arguments: {kwargs}")
    is_legacy = path.endswith(legacy.ENDINGS) and not path.endswith(".weights.h5")
    if by_name is not None and not is_legacy:
        raise SerializationError(f"`by_name` only supports loading legacy '.h5' or '.hdf5' files. Received: {path}")
    if skipped is not None and not path.endswith((".weights.h5", ".weights.json")):
        raise SerializationError(f"`objects_to_skip` only supports loading '.weights.h5' files.Received: {path}")
    model._need_built("loading weights into")
    if is_legacy:
        legacy.load_legacy_weights(model, path, by_name, skip_mismatch)
    elif path.endswith(".keras"):
        with archive.opened_archive(path) as parts, parts.weights() as reader, parts.assets() as assets:
            read_state(model, reader, skip_mismatch, assets=assets)
    elif path.endswith(".weights.h5"):
        with opened(path) as file:
            read_state(model, WeightsReader(file), skip_mismatch, skipped)
    elif path.endswith(".weights.json"):
        with sharded_reader(path) as reader:
            read_state(model, reader, skip_mismatch, skipped)
    else:
        raise SerializationError(
            f"File format not supported: filepath={path}. kerasoft reads Keras 3's `.keras`, `.weights.h5` and "
            "`.weights.json` files and legacy H5 format files (`.h5` extension)."
        )
