"""Decisions about kernels on disk: one JSON file for each machine description, under the user's cache folder.

The file is the user's own (folder 0700, file 0600), written whole and moved into place. A file that cannot be read, is
damaged, or belongs to somebody else is ignored with a warning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import math
import os
import pathlib
import stat
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was found for one op with its types and attributes.

    Attributes:
        times: {candidate: seconds}; empty if the budget was spent before its turn, so that the shipped rule decides.
        budget_s: the budget under which it was left unmeasured; a larger one measures it.
    """

    times: Mapping[str, float] = dataclasses.field(default_factory=dict)
    budget_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"times": dict(self.times)} if self.times else {"budget_s": self.budget_s}

    @classmethod
    def from_json(cls, value: Any) -> Decision:
        """
        Raises:
            ValueError: not what `to_json` writes.
        """
        times, budget = value.get("times", {}), value.get("budget_s", 0.0)
        if not all(isinstance(t, float) and 0 < t < math.inf for t in (*times.values(), budget or 1.0)):
            raise ValueError(f"no decision: {value!r}")
        return cls({str(k): t for k, t in times.items()}, budget)


def folder() -> pathlib.Path:
    """Where decisions are kept: $XDG_CACHE_HOME/kerasoft/kernels, by default under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = pathlib.Path(base) if os.path.isabs(base) else pathlib.Path.home() / ".cache"
    return root / "kerasoft" / "kernels"


class Decisions:
    """The decisions of one machine; read at once, written by `save`.

    Attributes:
        path: of the file.
        known: {key: Decision}, what was read and what was added.
    """

    def __init__(self, description: Mapping[str, Any]):
        self.description = dict(description)
        text = json.dumps(self.description, sort_keys=True)
        self.path = folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        self.known = self._read()
        self._new: dict[str, Decision] = {}

    def add(self, key: str, decision: Decision) -> None:
        self.known[key] = self._new[key] = decision

    def save(self) -> None:
        """Merges what was added into the file. A folder that cannot be written to costs a warning."""
        if not self._new:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked():
                self.known = self._read() | self._new  # what another process added meanwhile stays
                whole = {"format": FORMAT, "machine": self.description}
                whole["decisions"] = {key: self.known[key].to_json() for key in sorted(self.known)}
                _write(self.path, json.dumps(whole, indent=1))
        except OSError as error:
            warnings.warn(f"decisions about kernels cannot be kept in {self.path}: {error}", stacklevel=2)
        self._new = {}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, Decision]:
        try:
            with open(self.path, encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    raise ValueError("others than its owner can write to it, or it is not yours")
                whole = json.load(file)
            if whole["format"] != FORMAT or whole["machine"] != self.description:
                raise ValueError("it is of another format or machine")
            return {str(key): Decision.from_json(value) for key, value in whole["decisions"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(
                f"ignoring the decisions about kernels in {self.path}: {error}. Delete the file to measure anew.",
                stacklevel=2,
            )
            return {}


def _write(path: pathlib.Path, text: str) -> None:
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(made)
        raise
