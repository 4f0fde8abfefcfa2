"""Reading ahead: while a step is traced, another thread reads the executables that the last such step came to.

A guess and nothing more. A file `ahead-<digest of a name>` in the folder of the compile cache lists fingerprints; `name` is the
caller's, and says roughly what is trained. What was read is used where a step turns out to have one of these fingerprints
(`stored.kept`), and forgotten otherwise. JAX starts on that thread too, if it has not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from . import stored
from .allocator import keep_memory
from .kernels import bridge

_MAGIC = b"kerasoft ahead 1\n"
MOST = 8  # executables


class ReadAhead:
    """From its making to `finish`: what is read ahead, and which executables are used meanwhile.

    Args:
        name: says what is trained, roughly: another name is another guess.
    """

    def __init__(self, name: str):
        self._file = stored.path(hashlib.sha256(name.encode()).hexdigest(), "ahead")
        self._guess = _guessed(self._file) if self._file is not None else []
        if self._guess:
            keep_memory()  # before anything is computed
            bridge.targets()  # which the executables call
            stored.coming = _begun([file for file in map(stored.path, self._guess) if file is not None])
        stored.used = []

    def finish(self) -> None:
        """Forgets what was not used, and writes down what was."""
        used, stored.used, stored.coming = list(dict.fromkeys(stored.used or ()))[:MOST], None, {}
        if self._file is not None and used and used != self._guess:
            with contextlib.suppress(OSError):
                stored.write_whole(self._file, _MAGIC, json.dumps(used).encode())


def _guessed(file: pathlib.Path) -> list[str]:
    """The fingerprints in `file`; none if it cannot be used."""
    try:
        names = json.loads(bytes(stored.read_whole(file, _MAGIC)))
        fine = isinstance(names, list) and all(isinstance(name, str) and stored.is_name(name) for name in names)
        return names[:MOST] if fine else []
    except (OSError, ValueError):
        return []


def _begun(files: Sequence[pathlib.Path]) -> dict[pathlib.Path, Future]:
    """What each file holds, being read on a thread one after another."""
    coming: dict[pathlib.Path, Future] = {file: Future() for file in files}

    def read() -> None:
        for file, future in list(coming.items()):
            if future.set_running_or_notify_cancel():
                _settle(future, lambda: stored.opened(file))  # noqa: B023 (called at once)

    threading.Thread(target=read, name="kerasoft-ahead").start()
    return coming


def _settle(future: Future, work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 (whoever asks for the file hears of it)
        future.set_exception(error)
