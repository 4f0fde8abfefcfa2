"""`.keras` files: an uncompressed zip (or a folder) of ``metadata.json``, ``config.json``, ``model.weights.h5``, ``assets/``.

Reading runs nothing of it. Only assets (vocabularies) are unpacked, into a temporary folder.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import SerializationError, UnsafeFileError
from .hdf5 import KERAS_VERSION, WeightsReader, WeightsWriter, opened
from .serialization import serialize_with_shared_objects
from .state import write_state

CONFIG, METADATA, WEIGHTS, ASSETS = "config.json", "metadata.json", "model.weights.h5", "assets"
LARGEST_CONFIG = 64 << 20  # bytes
LARGEST_ASSET = 1 << 30  # bytes
LARGEST_EXPANSION = 100


# --- writing ------------------------------------------------------------------------------------------------------


def _texts(model: Any) -> dict[str, str]:
    metadata = {"keras_version": KERAS_VERSION, "date_saved": datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")}
    return {METADATA: json.dumps(metadata), CONFIG: json.dumps(serialize_with_shared_objects(model))}


def _write_weights(model: Any, file: Any, assets: str) -> None:
    import h5py

    def folder(path: str) -> str:
        place = os.path.join(assets, *path.split("/"))
        os.makedirs(place, exist_ok=True)
        return place

    with h5py.File(file, "w") as h5:
        write_state(model, WeightsWriter(h5), folder)


def write_zip(model: Any, file: Any) -> None:
    """Puts a model into an open binary file."""
    texts = _texts(model)
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
        tempfile.TemporaryFile() as weights,
        tempfile.TemporaryDirectory() as assets,
    ):
        for name, text in texts.items():
            archive.writestr(name, text)
        _write_weights(model, weights, assets)
        weights.seek(0)
        with archive.open(WEIGHTS, "w", force_zip64=True) as member:
            shutil.copyfileobj(weights, member, 1 << 20)
        for folder, _, names in os.walk(assets):
            for name in sorted(names):
                whole = os.path.join(folder, name)
                archive.write(whole, f"{ASSETS}/{os.path.relpath(whole, assets).replace(os.sep, '/')}")


def write_folder(model: Any, path: str, overwrite: bool) -> None:
    """Puts the parts of a model into the folder `path`."""
    if os.path.exists(os.path.join(path, CONFIG)) and not overwrite:
        raise SerializationError(f"the folder {path} holds a model; give overwrite=True to replace it")
    texts = _texts(model)
    os.makedirs(path, exist_ok=True)
    for name, text in texts.items():
        with open(os.path.join(path, name), "w") as file:
            file.write(text)
    with tempfile.TemporaryDirectory() as assets:
        _write_weights(model, os.path.join(path, WEIGHTS), assets)
        target = os.path.join(path, ASSETS)
        shutil.rmtree(target, ignore_errors=True)
        if any(names for _, _, names in os.walk(assets)):
            shutil.copytree(assets, target)


# --- reading ------------------------------------------------------------------------------------------------------

Assets = Callable[[str], str | None]
"""The folder with the assets of the object at a path, or None."""


class Archive:
    """The parts of a zipped model."""

    def __init__(self, path: str, archive: zipfile.ZipFile):
        self.path, self.archive = path, archive
        for member in archive.infolist():
            name = member.filename.replace("\\", "/")
            if name.startswith("/") or ".." in name.split("/") or ":" in name.split("/")[0]:
                raise UnsafeFileError(f"{path} has a member named {member.filename!r}, which leads out of the archive")
            if member.file_size > max(1 << 20, LARGEST_EXPANSION * member.compress_size):
                raise UnsafeFileError(
                    f"{path}: member {member.filename!r} would grow from {member.compress_size:,} to {member.file_size:,} bytes: "
                    "a decompression bomb"
                )
        for name in (CONFIG, WEIGHTS):
            if name not in archive.namelist():
                raise SerializationError(f"{path} is no `.keras` file: it has no {name}, only {archive.namelist()}")

    def config(self) -> dict:
        member = self.archive.getinfo(CONFIG)
        return _config(self.path, member.file_size, lambda: self.archive.read(CONFIG))

    def metadata(self) -> dict:
        """Versions and date; empty when the archive has none."""
        if METADATA not in self.archive.namelist() or self.archive.getinfo(METADATA).file_size > LARGEST_CONFIG:
            return {}
        return json.loads(self.archive.read(METADATA))

    @contextlib.contextmanager
    def weights(self) -> Iterator[WeightsReader]:
        import h5py

        with contextlib.ExitStack() as stack:
            member: Any = stack.enter_context(self.archive.open(WEIGHTS))
            if self.archive.getinfo(WEIGHTS).compress_type != zipfile.ZIP_STORED:
                member = io.BytesIO(member.read())
            try:
                file = stack.enter_context(h5py.File(member, "r"))
            except OSError as error:
                raise SerializationError(f"{self.path}: {WEIGHTS} is no HDF5 file: {error}") from error
            yield WeightsReader(file)

    @contextlib.contextmanager
    def assets(self) -> Iterator[Assets]:
        members = [m for m in self.archive.infolist() if m.filename.startswith(f"{ASSETS}/") and not m.is_dir()]
        if not members:
            yield lambda path: None
            return
        if sum(m.file_size for m in members) > LARGEST_ASSET:
            raise UnsafeFileError(f"{self.path}: the assets have more than {LARGEST_ASSET:,} bytes")
        with tempfile.TemporaryDirectory() as folder:
            for member in members:
                place = os.path.join(folder, *member.filename.replace("\\", "/").split("/")[1:])
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with self.archive.open(member) as source, open(place, "wb") as target:
                    shutil.copyfileobj(source, target)
            yield _in(folder)


class Folder:
    """The parts of a model saved with ``zipped=False``."""

    def __init__(self, path: str):
        self.path = path

    def config(self) -> dict:
        place = os.path.join(self.path, CONFIG)

        def read() -> bytes:
            with open(place, "rb") as file:
                return file.read()

        return _config(self.path, os.path.getsize(place), read)

    @contextlib.contextmanager
    def weights(self) -> Iterator[WeightsReader]:
        with opened(os.path.join(self.path, WEIGHTS)) as file:
            yield WeightsReader(file)

    @contextlib.contextmanager
    def assets(self) -> Iterator[Assets]:
        yield _in(os.path.join(self.path, ASSETS))


def _in(folder: str) -> Assets:
    def find(path: str) -> str | None:
        place = os.path.join(folder, *path.split("/"))
        return place if os.path.isdir(place) else None

    return find


@contextlib.contextmanager
def opened_archive(path: Any) -> Iterator[Any]:
    """The parts of the `.keras` file (its path, or open) or folder at `path`.

    Raises:
        SerializationError: there is none, or it is damaged.
        UnsafeFileError: members that lead out of it, or grow too much.
    """
    is_path = isinstance(path, (str, os.PathLike))
    if is_path and os.path.isdir(path):
        yield Folder(path)
        return
    if is_path and not os.path.exists(path):
        raise SerializationError(
            f"File not found: filepath={path}. Please ensure the file is an accessible `.keras` zip file."
        )
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise SerializationError(f"{path} is no `.keras` file: {error}") from error
    with archive:
        yield Archive(path, archive)


def _config(path: str, size: int, read: Callable[[], bytes]) -> dict:
    if size > LARGEST_CONFIG:
        raise UnsafeFileError(f"{path}: {CONFIG} has {size:,} bytes, more than {LARGEST_CONFIG:,}")
    try:
        config = json.loads(read())
    except (ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise SerializationError(f"{path}: {CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict) or "class_name" not in config:
        raise SerializationError(f"{path}: {CONFIG} is no model config")
    return config
