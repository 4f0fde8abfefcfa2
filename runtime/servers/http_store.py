"""A parameter server behind HTTP: every message is a POST, every answer a response; both are signed, none is pickled.

    GET  /<rank>            header Nonce (client's)       → Nonce (server's), Proof = HMAC("server" | both nonces | "")
    POST /<rank>/<counter>  header Proof, body = message  → Proof, body = answer, or empty

A proof is ``HMAC(side | server's nonce | client's nonce | path | SHA-256(body))`` under the fit's secret. Nonces belong to one
connection, counters rise by one on it, so that a recorded request or answer is worth nothing anywhere else. Who asks for
something that is not there yet is told after a while whom everybody waits for, and asks on.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import http.server
import os
import queue
import threading
from collections.abc import Sequence
from typing import Any

from ..collectives.base import Peer
from ..collectives.links import blame
from ..errors import DistributedError, HandshakeError, PeerLost, WireError
from ..wire import MAX_BODY_BYTES, Message
from .effects import Push
from .messages import decode, from_bytes, to_bytes
from .port import Port


def proof(secret: bytes, side: bytes, nonces: bytes, path: str, body: bytes) -> str:
    return hmac.new(secret, side + nonces + path.encode() + hashlib.sha256(body).digest(), hashlib.sha256).hexdigest()


class HttpListener:
    """The HTTP server of one rank; `address` goes into the table."""

    def __init__(self, host: str):
        self._server = http.server.ThreadingHTTPServer((host, 0), _Handler)
        self._server.daemon_threads = True
        self.address = {"http": list(self._server.server_address[:2])}
        self._thread: threading.Thread | None = None

    def serve(self, secret: bytes, generation: int, rank: int, workers: Sequence[int], port: Port) -> None:
        server: Any = self._server
        server.secret, server.port = secret + generation.to_bytes(8, "little") + rank.to_bytes(4, "little"), port
        server.workers = frozenset(workers) - {rank}
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="kerasoft-http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()


class _End:
    """Answers for one worker wait here until it fetches them."""

    def __init__(self) -> None:
        self.answers: queue.Queue[Any] = queue.Queue()

    def send(self, value: Any) -> None:
        self.answers.put(value)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection of one worker."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    nonces = b""
    worker, counter = -1, 0

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        server: Any = self.server
        try:
            self.worker, client = int(self.path.strip("/")), bytes.fromhex(self.headers["Nonce"])
        except (ValueError, TypeError, KeyError):
            return self._refuse(400)
        if len(client) != 32 or self.worker not in server.workers:
            return self._refuse(403)
        nonce = os.urandom(32)
        self.nonces, self.counter, self.end = nonce + client, 0, _End()
        self._answer(b"", Nonce=nonce.hex())

    def do_POST(self) -> None:
        server: Any = self.server
        length = int(self.headers.get("Content-Length", -1))
        if not self.nonces or not 0 <= length <= MAX_BODY_BYTES:
            return self._refuse(403)
        body = self.rfile.read(length)
        self.counter += 1
        wanted = proof(server.secret, b"client", self.nonces, self.path, body)
        if self.path != f"/{self.worker}/{self.counter}" or not hmac.compare_digest(
            wanted, self.headers.get("Proof", "")
        ):
            return self._refuse(403)
        port: Port = server.port
        try:
            message = from_bytes(body)
            value = message if message.kind == "poll" else decode(message, self.worker)
            if self.counter == 1:
                port.enter(self.worker, self.end)
            if message.kind != "poll":
                port.handle(self.worker, value)
            self._answer(b"" if isinstance(value, Push) else to_bytes(self._next(port)))
        except DistributedError as error:
            port.failure = port.failure or error
            self._refuse(400)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # of the update, say: the rank's own thread raises it
            port.failure = error
            self._refuse(500)

    def _next(self, port: Port) -> Any:
        """The next answer; what keeps everybody waiting if there is none for a while."""
        try:
            return self.end.answers.get(timeout=min(port.timeout_s / 4, 5.0))
        except queue.Empty:
            port.handle(self.worker, Message("who"))
            return self.end.answers.get(timeout=port.timeout_s)

    def _answer(self, body: bytes, **headers: str) -> None:
        server: Any = self.server
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Proof", proof(server.secret, b"server", self.nonces, f"{self.path}", body))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        server.port.bytes_sent += len(body)

    def _refuse(self, status: int) -> None:
        self.close_connection = True
        self.send_error(status)


class HttpLink:
    """A worker's connection to one HTTP server. Questions are asked by a thread, so that the worker need not wait."""

    def __init__(
        self, server: int, peer: Peer, rank: int, secret: bytes, generation: int, inbox: queue.Queue, timeout_s: float
    ):
        self.server, self.peer, self._inbox, self._rank = server, peer, inbox, rank
        self._secret = secret + generation.to_bytes(8, "little") + peer.rank.to_bytes(4, "little")
        self.bytes_sent = self.bytes_received = self._counter = 0
        host, port = peer.address["http"]
        self._http = http.client.HTTPConnection(host, port, timeout=2 * timeout_s)
        client = os.urandom(32)
        try:
            self._http.request("GET", f"/{rank}", headers={"Nonce": client.hex()})
            response = self._http.getresponse()
            response.read()
            nonce = bytes.fromhex(response.headers.get("Nonce", ""))
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._http.close()
            raise PeerLost(f"{peer} is lost: {error!r}.", **blame(peer, -1, "connect")) from error
        self._nonces = nonce + client
        wanted = proof(self._secret, b"server", self._nonces, f"/{rank}", b"")
        if not hmac.compare_digest(wanted, response.headers.get("Proof", "")):
            self._http.close()
            raise HandshakeError(
                f"rank {rank} reached something at {host}:{port} that does not hold this fit's secret."
            )
        self._lock, self._questions = threading.Lock(), queue.Queue[Any]()
        self._thread = threading.Thread(target=self._ask, name="kerasoft-http-answers", daemon=True)
        self._thread.start()

    def put(self, value: Any) -> None:
        if isinstance(value, Push):
            self._post(value)
        elif not (isinstance(value, Message) and value.kind == "who"):  # the server tells that by itself
            self._questions.put(value)

    def _post(self, value: Any) -> bytes:
        body = to_bytes(value)
        try:
            with self._lock:
                self._counter += 1
                path = f"/{self._rank}/{self._counter}"
                headers = {"Proof": proof(self._secret, b"client", self._nonces, path, body)}
                self._http.request("POST", path, body, headers)
                response = self._http.getresponse()
                answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise PeerLost(f"{self.peer} is lost: {error!r}.", **blame(self.peer, -1, "push")) from error
        if response.status != 200:
            raise PeerLost(f"{self.peer} refused a message: {response.status}.", **blame(self.peer, -1, "push"))
        wanted = proof(self._secret, b"server", self._nonces, path, answer)
        if not hmac.compare_digest(wanted, response.headers.get("Proof", "")):
            raise WireError(f"an answer of {self.peer} is not signed by this fit's secret.")
        self.bytes_sent += len(body)
        self.bytes_received += len(answer)
        return answer

    def _ask(self) -> None:
        try:
            while (value := self._questions.get()) is not None:
                message = from_bytes(self._post(value))
                while message.kind == "who":
                    self._inbox.put((self.server, message))
                    message = from_bytes(self._post(Message("poll")))
                self._inbox.put((self.server, decode(message)))
        except DistributedError as error:
            self._inbox.put((self.server, error))

    def close(self) -> None:
        self._questions.put(None)
        if self._http.sock is not None:
            try:
                self._http.sock.shutdown(2)
            except OSError:
                pass
        self._thread.join()
        self._http.close()
