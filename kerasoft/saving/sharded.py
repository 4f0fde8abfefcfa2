"""Weights spread over several files: ``<name>.weights.json`` lists which file holds which object's variables."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import SerializationError, UnsafeFileError
from .hdf5 import GroupReader, GroupWriter, inside, opened

LARGEST_LIST = 64 << 20  # bytes


class ShardedWriter:
    """Puts variables into files of at most `largest_bytes` each (one variable is never cut).

    Args:
        path: of the list, ends in ``.weights.json``.
    """

    def __init__(self, path: str, largest_bytes: float):
        self.folder, name = os.path.split(os.path.abspath(path))
        self.path, self.base, self.largest_bytes = (
            path,
            name.removesuffix(".json").replace(".weights", ""),
            largest_bytes,
        )
        self.map: dict[str, list[str]] = {}
        self.count, self.size, self.total = 0, 0, 0
        self.file: Any = None
        self._next()

    def _next(self) -> None:
        import h5py

        if self.file is not None:
            self.file.close()
        self.name = f"{self.base}_{self.count:05}.weights.h5"
        self.file = h5py.File(os.path.join(self.folder, self.name), "w")
        self.count, self.size = self.count + 1, 0

    def group(self, path: str, name: str | None) -> ShardedGroup:
        return ShardedGroup(self, f"{path}/vars" if path else "vars", name)

    def place(self, path: str, name: str | None, nbytes: int) -> GroupWriter:
        """The group `path` in a file that has room for `nbytes` more."""
        if nbytes > self.largest_bytes:
            raise SerializationError(
                f"a variable of {path} has {nbytes:,} bytes, more than a file may have: max_shard_size="
                f"{self.largest_bytes / 1024**3:g} GB"
            )
        if self.size and self.size + nbytes > self.largest_bytes:
            self._next()
        group = self.file.require_group(path)
        if name is not None:
            group.attrs["name"] = name
        files = self.map.setdefault(f"/{path}", [])
        if self.name not in files:
            files.append(self.name)
        self.size, self.total = self.size + nbytes, self.total + nbytes
        return GroupWriter(group)

    def close(self) -> None:
        self.file.close()
        with open(self.path, "w") as out:
            json.dump({"metadata": {"total_size": self.total}, "weight_map": self.map}, out, indent=4)


class ShardedGroup:
    """``store["0"] = array``, in whichever file has room."""

    def __init__(self, writer: ShardedWriter, path: str, name: str | None):
        self.writer, self.path, self.name = writer, path, name
        self.written: list[str] = []

    def __setitem__(self, key: str, value: Any) -> None:
        self.writer.place(self.path, self.name, np.asarray(value).nbytes)[key] = value
        self.written.append(key)

    def __contains__(self, key: str) -> bool:
        return key in self.written

    def keys(self) -> list[str]:
        return list(self.written)


class ShardedReader:
    """Finds the variables of objects in the files that a list names."""

    def __init__(self, folder: str, weights: dict[str, list[str]], stack: contextlib.ExitStack):
        self.folder, self.weights, self.stack = folder, weights, stack
        self.files: dict[str, Any] = {}

    def group(self, path: str) -> Any:
        place = f"{path}/vars" if path else "vars"
        groups = []
        for name in self.weights.get(f"/{place}", []):
            if name not in self.files:
                self.files[name] = self.stack.enter_context(opened(os.path.join(self.folder, name)))
            groups.append(GroupReader(inside(self.files[name], place)))
        return groups[0] if len(groups) == 1 else ManyGroups(groups)


class ManyGroups:
    """The variables of one object that lie in several files."""

    def __init__(self, groups: list[GroupReader]):
        self.groups = {key: group for group in groups for key in group.keys()}

    def keys(self) -> list[str]:
        return list(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __contains__(self, key: str) -> bool:
        return key in self.groups

    def __getitem__(self, key: str) -> np.ndarray:
        return self.groups[key][key]


@contextlib.contextmanager
def sharded_reader(path: str) -> Iterator[ShardedReader]:
    """A reader for the list at `path`.

    Raises:
        SerializationError: no such list, or one that is damaged.
        UnsafeFileError: it names a file in another folder.
    """
    if not os.path.exists(path):
        raise SerializationError(f"there is no file {path}")
    if os.path.getsize(path) > LARGEST_LIST:
        raise UnsafeFileError(f"{path} has {os.path.getsize(path):,} bytes, more than {LARGEST_LIST:,}")
    try:
        with open(path) as file:
            found = json.load(file)["weight_map"]
        weights = {str(k): [v] if isinstance(v, str) else list(v) for k, v in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SerializationError(f"{path} is no list of weights files: {error}") from error
    for name in {name for names in weights.values() for name in names}:
        if not isinstance(name, str) or os.path.basename(name) != name or name in (".", "..") or "\\" in name:
            raise UnsafeFileError(f"{path} names {name!r}, which is not a file beside it")
    with contextlib.ExitStack() as stack:
        yield ShardedReader(os.path.dirname(os.path.abspath(path)), weights, stack)
