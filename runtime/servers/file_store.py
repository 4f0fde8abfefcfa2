"""A parameter server behind a shared folder: messages and the model are files that appear whole or not at all.

    folder/<fit>-<generation>/to-<server>/<worker>-<session>-<counter>          a message of a worker
    folder/<fit>-<generation>/from-<server>-to-<worker>-<session>/<counter>     an answer: the model, mostly

Each file is a message and 32 bytes of HMAC over its name and content, under the fit's secret; other files are ignored. A file is
removed when it has been read. Readers look again after 0.5 to 8 ms.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pathlib
import queue
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ..collectives.base import Peer
from ..collectives.links import blame
from ..errors import DistributedError, PeerLost
from .messages import decode, from_bytes, to_bytes
from .port import Port

_NAP_S = (0.0005, 0.008)


def write(path: pathlib.Path, name: str, value: Any, secret: bytes) -> int:
    """Writes a message beside its place, then renames it; its bytes."""
    data = to_bytes(value)
    beside = path / f".{name}"
    with open(beside, "wb") as file:
        file.write(data)
        file.write(_proof(secret, path, name, data))
    os.rename(beside, path / name)
    return len(data)


def read(path: pathlib.Path, name: str, secret: bytes) -> bytes | None:
    """A message's bytes, and removes its file; None if it is not of this fit."""
    data = (path / name).read_bytes()
    os.unlink(path / name)
    body = data[:-32]
    return body if hmac.compare_digest(data[-32:], _proof(secret, path, name, body)) else None


def _proof(secret: bytes, path: pathlib.Path, name: str, data: bytes) -> bytes:
    where = f"{path.parent.name}/{path.name}/{name}/".encode()
    return hmac.new(secret, where + hashlib.sha256(data).digest(), hashlib.sha256).digest()


def arriving(path: pathlib.Path, ended: threading.Event) -> Iterator[list[str]]:
    """The names of files in a folder whenever there are some, in order."""
    nap = _NAP_S[0]
    while not ended.is_set():
        names = sorted(n for n in os.listdir(path) if not n.startswith("."))
        if names:
            nap = _NAP_S[0]
            yield names
        else:
            time.sleep(nap)
            nap = min(2 * nap, _NAP_S[1])


class FileListener:
    """One server's letter box."""

    def __init__(self, folder: str):
        self._root = pathlib.Path(folder)
        self.address = {"folder": folder}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def serve(self, secret: bytes, generation: int, rank: int, workers: Sequence[int], port: Port) -> None:
        self._path = folder_of(self._root, secret, generation)
        box = self._path / f"to-{rank}"
        box.mkdir(parents=True, mode=0o700, exist_ok=True)
        others = frozenset(workers) - {rank}
        self._thread = threading.Thread(target=self._read, args=(box, rank, others, secret, port), daemon=True)
        self._thread.start()

    def _read(self, box: pathlib.Path, rank: int, workers: frozenset[int], secret: bytes, port: Port) -> None:
        ends: dict[tuple[int, str], _End] = {}
        try:
            for names in arriving(box, self._ended):
                for name in names:
                    data = read(box, name, secret)
                    if data is None:
                        continue
                    worker, session = int(name.split("-")[0]), name.split("-")[1]
                    if worker not in workers:
                        continue
                    if (worker, session) not in ends:
                        answers = self._path / f"from-{rank}-to-{worker}-{session}"
                        ends[worker, session] = _End(answers, secret, port)
                        port.enter(worker, ends[worker, session])
                    port.handle(worker, decode(from_bytes(data), worker))
        except Exception as error:
            if not self._ended.is_set():
                port.failure = error

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            shutil.rmtree(self._path, ignore_errors=True)


def folder_of(root: pathlib.Path, secret: bytes, generation: int) -> pathlib.Path:
    """Of one attempt of one fit: its name tells the secret to nobody."""
    return root / f"kerasoft-{hashlib.sha256(b'folder' + secret).hexdigest()[:16]}-{generation}"


class _End:
    def __init__(self, path: pathlib.Path, secret: bytes, port: Port):
        self._path, self._secret, self._port = path, secret, port
        self._counter, self._lock = 0, threading.Lock()

    def send(self, value: Any) -> None:
        with self._lock:
            self._counter += 1
            try:
                self._port.bytes_sent += write(self._path, f"{self._counter:012d}", value, self._secret)
            except FileNotFoundError:  # the worker is gone, and its folder
                pass


class FileLink:
    """A worker's way to one server."""

    def __init__(
        self, server: int, peer: Peer, rank: int, secret: bytes, generation: int, inbox: queue.Queue, timeout_s: float
    ):
        self.server, self._peer, self._inbox, self._rank, self._secret = server, peer, inbox, rank, secret
        self.bytes_sent = self.bytes_received = self._counter = 0
        self._session = os.urandom(8).hex()
        root = folder_of(pathlib.Path(peer.address["folder"]), secret, generation)
        self._box = root / f"to-{peer.rank}"
        self._answers = root / f"from-{peer.rank}-to-{rank}-{self._session}"
        self._box.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._answers.mkdir(mode=0o700)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="kerasoft-files", daemon=True)
        self._thread.start()

    def put(self, value: Any) -> None:
        self._counter += 1
        name = f"{self._rank}-{self._session}-{self._counter:012d}"
        try:
            self.bytes_sent += write(self._box, name, value, self._secret)
        except FileNotFoundError:
            raise self._gone("push") from None

    def _read(self) -> None:
        try:
            for names in arriving(self._answers, self._ended):
                for name in names:
                    data = read(self._answers, name, self._secret)
                    if data is not None:
                        self.bytes_received += len(data)
                        self._inbox.put((self.server, decode(from_bytes(data))))
        except FileNotFoundError:
            if not self._ended.is_set():
                self._inbox.put((self.server, self._gone("fetch")))
        except (DistributedError, OSError) as error:
            if not self._ended.is_set():
                self._inbox.put((self.server, error))

    def _gone(self, phase: str) -> PeerLost:
        """The server removes its folders when it ends, for whatever reason: that is its loss, not an error of this rank."""
        return PeerLost(f"{self._peer} is lost: its folder is gone.", **blame(self._peer, -1, phase))

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        shutil.rmtree(self._answers, ignore_errors=True)
