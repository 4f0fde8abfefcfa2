"""A worker's rows: contiguous arrays for each shard it owns, in memory or in mapped files on its scratch disk."""

from __future__ import annotations

import errno
import math
import mmap
import os
import pathlib
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from .errors import DataChanged
from .shards import Block, Fingerprint, ShardTable

_FAULT_BYTES = 1 << 16  # the kernel maps up to so much around a touched page


class ShardStore:
    """The rows of some shards of one data set, checked against its table.

    Rows come with `add`, in any order; `finish` checks that all of them came.

    Args:
        table: of the whole data set.
        shards: the shards that must arrive complete.
        where: names the source in errors, for instance "partition 3 of the training data".
        memory_cap_bytes: above this size the arrays are files below `scratch`, mapped into memory and let go of again,
            so that the process stays within about the cap; None for memory always. The rows are the same.
        scratch: folder for the files; the executor's own (removed with it) or the system's by default.
    """

    def __init__(
        self,
        table: ShardTable,
        shards: Sequence[int],
        where: str = "the data",
        memory_cap_bytes: int | None = None,
        scratch: str | None = None,
    ):
        self.table, self.shards = table, tuple(shards)
        self._where = where
        self._arrays: dict[int, dict[str, np.ndarray]] = {}
        self._places: dict[int, np.ndarray] = {}
        self._arrived: dict[int, list[tuple[int, int, int]]] = {s: [] for s in self.shards}  # sequence, first row, rows
        self._filled = dict.fromkeys(self.shards, 0)
        self._folder: pathlib.Path | None = None
        self._let_go_bytes = 0
        self._touched_bytes = 0
        if memory_cap_bytes is not None and self.bytes > memory_cap_bytes:
            self._folder = pathlib.Path(tempfile.mkdtemp(prefix="kerasoft-rows-", dir=scratch or scratch_folder()))
            self._let_go_bytes = max(memory_cap_bytes // 4, 1 << 20)

    @property
    def bytes(self) -> int:
        """Size of the rows."""
        return sum(self.table.bytes[s] for s in self.shards)

    @property
    def mapped(self) -> bool:
        """Whether the rows live in files."""
        return self._folder is not None

    def add(self, shard: int, sequence: int, block: Block) -> None:
        """Takes in a block.

        Raises:
            DataChanged: other rows came than the table was made from; names shard and source, what was expected, what came.
        """
        if shard not in self._arrived:
            raise DataChanged(
                f"{self._where}: rows of shard {shard} came to the worker of shards {list(self.shards)}. "
                "The data's partitioning changed while it was read; persist or checkpoint the RDD before fit."
            )
        rows = len(next(iter(block.values())))
        first, last = self._filled[shard], self._filled[shard] + rows
        if last > self.table.rows[shard]:
            self._changed(shard, f"{self.table.rows[shard]} rows", f"at least {last}")
        if shard not in self._arrays:
            self._arrays[shard] = {name: self._allocate(shard, name, a) for name, a in block.items()}
        arrays = self._arrays[shard]
        if _kinds(arrays) != _kinds(block):
            self._changed(shard, f"blocks like {_shapes(arrays)}", f"a block of {_shapes(block)}")
        for name, array in block.items():
            arrays[name][first:last] = array
        self._touch(rows, arrays, scattered=False)
        self._arrived[shard].append((sequence, first, rows))
        self._filled[shard] = last

    def finish(self) -> ShardStore:
        """Checks that every shard is complete and has the rows it had when it was counted. Raises as `add`."""
        for shard in self.shards:
            if self._filled[shard] != self.table.rows[shard]:
                self._changed(shard, f"{self.table.rows[shard]} rows", f"{self._filled[shard]}")
            parts = sorted(self._arrived[shard])
            if parts != self._arrived[shard]:
                self._places[shard] = np.concatenate([np.arange(f, f + n, dtype=np.uint32) for _, f, n in parts])
            digest = Fingerprint()
            for _, first, rows in parts:
                digest.add({name: a[first : first + rows] for name, a in self._arrays[shard].items()})
                self._touch(rows, self._arrays[shard], scattered=False)
            if digest.hexdigest() != self.table.fingerprints[shard]:
                self._changed(
                    shard,
                    f"fingerprint {self.table.fingerprints[shard][:16]}…",
                    f"{digest.hexdigest()[:16]}… from the same number of rows",
                )
        return self

    def _changed(self, shard: int, expected: str, got: str) -> None:
        raise DataChanged(
            f"{self._where}: shard {shard} is not what it was when the data was counted: "
            f"expected {expected}, got {got}. Spark computed the RDD again and it came out differently (random or "
            "time-dependent transformations, changed files, unordered sources). "
            "Make it repeatable, or write it out and read it back, before fit."
        )

    def _allocate(self, shard: int, name: str, like: np.ndarray) -> np.ndarray:
        shape = (self.table.rows[shard], *np.shape(like)[1:])
        if self._folder is None or 0 in shape:
            return np.empty(shape, like.dtype)
        path = self._folder / f"{shard}-{len(list(self._folder.iterdir()))}.rows"
        _take_room(path, math.prod(shape) * like.dtype.itemsize)
        array = np.memmap(path, like.dtype, "r+", shape=shape)
        _mapping(array).madvise(mmap.MADV_RANDOM)
        return array

    def _touch(self, rows: int, arrays: Mapping[str, np.ndarray], scattered: bool) -> None:
        """Counts touched pages and lets go of them in time; mapped pages count as the process's memory."""
        if self._folder is None:
            return
        for array in arrays.values():
            self._touched_bytes += rows * (array[:1].nbytes + (_FAULT_BYTES if scattered else 0))
        if self._touched_bytes > self._let_go_bytes:
            self._touched_bytes = 0
            for group in self._arrays.values():
                for array in group.values():
                    if isinstance(array, np.memmap):
                        _mapping(array).madvise(mmap.MADV_DONTNEED)

    def keep(self, names: Collection[str]) -> None:
        """Lets go of all other arrays, when they have been checked: `gather` gives these alone from now on."""
        for arrays in self._arrays.values():
            for name in [n for n in arrays if n not in names]:
                array = arrays.pop(name)
                if isinstance(array, np.memmap):
                    os.unlink(str(array.filename))

    def specs(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """(shape of a row, dtype) of each array; empty when no shard here has rows."""
        return next((_kinds(arrays) for arrays in self._arrays.values()), {})

    def gather(self, shard: int, rows: np.ndarray, into: Mapping[str, np.ndarray], at: int) -> None:
        """Copies `rows` (indices within the shard) to ``into[name][at : at + len(rows)]``."""
        places = self._places.get(shard)
        if places is not None:
            rows = places[rows]
        arrays = self._arrays[shard]
        for name, array in arrays.items():
            np.take(array, rows, axis=0, out=into[name][at : at + len(rows)], mode="clip")
        self._touch(len(rows), arrays, scattered=True)

    def close(self) -> None:
        """Frees memory and files."""
        self._arrays.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def scratch_folder() -> str | None:
    """A disk folder that goes away with the executor; None (the system's) outside one."""
    for name in ("SPARK_EXECUTOR_DIRS", "SPARK_LOCAL_DIRS"):
        for folder in os.environ.get(name, "").replace(":", ",").split(","):
            if folder and os.path.isdir(folder):
                return folder
    return None


def _take_room(path: pathlib.Path, size: int) -> None:
    """Makes a file with so many bytes of disk: a full one is an error here, not the end of the process (SIGBUS) later.

    Raises:
        OSError: there is no room; names the folder and the bytes.
    """
    with open(path, "wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            text = f"{os.strerror(error.errno or errno.EIO)}: {size:,} bytes of rows in {path.parent}"
            raise OSError(error.errno, f"{text}; free it, or raise memory_cap_bytes") from None


def _mapping(array: np.ndarray) -> mmap.mmap:
    return array._mmap  # type: ignore[attr-defined]


def _kinds(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    return {name: (np.shape(a)[1:], a.dtype) for name, a in arrays.items()}


def _shapes(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{n}: {a.dtype}{list(np.shape(a)[1:])}" for n, a in sorted(arrays.items()))
