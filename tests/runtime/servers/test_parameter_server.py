"""Servers and workers apart: every store, any numbers, workers that are replaced in mid-epoch. Ranks as threads."""

import dataclasses
import http.client
import os
import queue
import socket

import numpy as np
import pytest
from kerasoft.runtime import AllReduce, ParameterServer
from kerasoft.runtime.collectives import Peer
from kerasoft.runtime.errors import HandshakeError, PeerLost, WireError
from kerasoft.runtime.faults import Fault
from kerasoft.runtime.servers.effects import WHOLE, Ask, Push
from kerasoft.runtime.servers.file_store import FileLink, FileListener
from kerasoft.runtime.servers.http_store import HttpLink, HttpListener
from kerasoft.runtime.servers.messages import decode, from_bytes, to_bytes
from kerasoft.runtime.servers.port import Port, SocketEnd
from kerasoft.runtime.wire import Message

from tests.runtime import cases
from tests.runtime.cases import digest, fit_in_threads, mlp, shards

SIZES = (13, 0, 29, 5, 20)
IDS = [67, sum(range(67)), sum(i * i for i in range(67))]


@pytest.fixture(scope="module")
def expected():
    """The digest of deterministic AllReduce."""
    strategy = AllReduce(deterministic=True, timeout_s=5)
    return digest(fit_in_threads(mlp(dropout=True), shards(SIZES), 2, strategy, epochs=2, validation=shards((9, 4)))[0])


@pytest.mark.parametrize(
    ("store", "servers", "workers"),
    [("coprocessor", 1, 3), ("coprocessor", 2, 2), ("coprocessor", 3, 1), ("http", 2, 2), ("file", 1, 2)],
)
def test_weights_depend_neither_on_the_store_nor_on_the_numbers(store, servers, workers, expected, tmp_path):
    folder = str(tmp_path) if store == "file" else None
    strategy = ParameterServer(servers, store, workers=workers, folder=folder, deterministic=True, timeout_s=5)
    result, hooks, driver = fit_in_threads(
        mlp(dropout=True), shards(SIZES), servers + workers, strategy, epochs=2, validation=shards((9, 4))
    )
    assert digest(result) == expected
    assert [e.sums[1:].tolist() for e in hooks.ends] == [IDS] * 2
    assert not list(tmp_path.iterdir())
    P = len(result.params)
    steps = [c["bytes_received"] / 10 for c in driver.counters[servers:]]
    assert all(4 * P <= received < 1.6 * (4 * P + 800 * servers) for received in steps), steps
    received = sum(c["bytes_received"] for c in driver.counters)
    assert received <= sum(c["bytes_sent"] for c in driver.counters[:servers]) < received + 250 * 20 * 9


def test_updates_that_need_whole_vectors_are_made_by_one_server():
    strategy = AllReduce(deterministic=True, timeout_s=5)
    expected = digest(fit_in_threads(mlp(clip=True), shards(SIZES), 2, strategy)[0])
    strategy = ParameterServer(2, workers=2, deterministic=True, timeout_s=5)
    assert digest(fit_in_threads(mlp(clip=True), shards(SIZES), 4, strategy)[0]) == expected


class Replacing(cases.ThreadLauncher):
    """Runs a rank again that fails, as Spark does with a task outside of a barrier."""

    def launch(self, task):
        return ReplacingThreads(self, task)


class ReplacingThreads(cases.Threads):
    def rank(self, rank):
        for _ in range(3):
            before = len(self.errors)
            super().rank(rank)
            if len(self.errors) == before or rank < self.task.settings.method.servers:
                return
            self.errors.pop()


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(2, 0, 2, "leave"), Fault(1, 1, 0, "leave")],
        [Fault(1, 0, 4, "leave"), Fault(2, 1, 0, "leave", "validation")],
    ],
    ids=["steps", "ends"],
)
def test_a_replaced_worker_loses_and_repeats_no_row(faults, expected, monkeypatch):
    monkeypatch.setattr(cases, "ThreadLauncher", Replacing)
    strategy = ParameterServer(1, workers=3, deterministic=True, timeout_s=5)
    result, hooks, _ = fit_in_threads(
        mlp(dropout=True), shards(SIZES), 4, strategy, epochs=2, validation=shards((9, 4)), faults=faults,
        checkpoint_every_steps=2,
    )  # fmt: skip
    assert digest(result) == expected
    assert [e.sums[1:].tolist() for e in hooks.ends] == [IDS] * 2
    assert [(r.epoch, r.step) for r in hooks.steps] == [(e, s) for e in range(2) for s in range(5)]
    kinds = [e.kind for e in hooks.events]
    assert kinds.count("worker_lost") == kinds.count("worker_replaced") == 2 and "retrying" not in kinds


@pytest.mark.parametrize(
    "fault", [Fault(1, 1, 0, "leave", "serve"), Fault(3, 1, 1, "leave")], ids=["server", "worker that nobody replaces"]
)
def test_what_cannot_be_replaced_ends_the_attempt(fault, expected):
    strategy = ParameterServer(2, workers=2, deterministic=True, timeout_s=2)
    result, hooks, _ = fit_in_threads(
        mlp(dropout=True), shards(SIZES), 4, strategy, epochs=2, validation=shards((9, 4)), faults=[fault]
    )
    assert digest(result) == expected
    assert [e.kind for e in hooks.events].count("retrying") == 1


# --- strangers -----------------------------------------------------------------------------------------------------------


def test_http_refuses_whoever_does_not_hold_the_secret():
    port, listener = Port(1.0), HttpListener("127.0.0.1")
    secret = os.urandom(32)
    listener.serve(secret, 0, 0, (1, 2), port)
    try:
        peer = cases_peer(listener.address)
        with pytest.raises(HandshakeError, match="does not hold this fit's secret"):
            HttpLink(0, peer, 1, os.urandom(32), 0, None, 1.0)
        with pytest.raises(HandshakeError):
            HttpLink(0, peer, 1, secret, 7, None, 1.0)  # of another generation
        host, number = listener.address["http"]
        raw = http.client.HTTPConnection(host, number, timeout=2)
        raw.request("POST", "/1/1", b"cos\nsystem\n(S'true'\ntR.", {"Proof": "00"})
        assert raw.getresponse().status == 403
        raw.close()
        assert port.failure is None
    finally:
        listener.close()


def cases_peer(address):
    from kerasoft.runtime.collectives import Peer

    return Peer(0, "here", 1, address)


def test_messages_come_back_as_they_were_and_garbage_does_not():
    push = Push(1, 2, 3, {WHOLE: np.arange(4, dtype=np.float32)}, {(2, 1): np.ones(2, np.float32)}, 5, 6, 0.5)
    back = decode(from_bytes(to_bytes(push)), 1)
    np.testing.assert_array_equal(back.parts[WHOLE], push.parts[WHOLE])
    assert (back.worker, back.epoch, back.clock, back.mark, back.accrued, back.rate) == (1, 2, 3, 5, 6, 0.5)
    assert decode(from_bytes(to_bytes(Ask(0, 1, 2, 3))), 9) == Ask(9, 1, 2, 3)  # who it is, the connection says
    data = to_bytes(push)
    for bad in (b"", data[:40], data[:-1], data + b"x", b"\x80\x04" + data):
        with pytest.raises(WireError):
            from_bytes(bad)
    wrong = dataclasses.replace(push, parts={WHOLE: np.zeros(2, np.float64)})
    with pytest.raises(WireError, match="float64"):
        decode(from_bytes(to_bytes(wrong)), 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"servers": 0}, "servers needs a whole number of at least 1, got 0"),
        ({"store": "tape"}, "store needs one of 'coprocessor', 'http', 'file', 'broadcast', got 'tape'"),
        ({"store": "file"}, "folder .* belongs to store='file'"),
        ({"store": "broadcast", "deterministic": True}, "adds in Spark's order"),
        ({"staleness": -1}, "staleness needs a whole number of clocks"),
    ],
)
def test_errors_say_what_to_change(arguments, text):
    with pytest.raises(ValueError, match=text):
        ParameterServer(**arguments)


def test_a_file_server_that_leaves_is_lost_and_no_error_of_the_worker(tmp_path):
    """It removes its folders; who waits for a file there must not end the fit by a FileNotFoundError of its own."""
    secret, inbox = bytes(32), queue.Queue()
    listener = FileListener(str(tmp_path))
    listener.serve(secret, 0, 1, (0,), Port())
    link = FileLink(0, Peer(1, "b", 11, listener.address), 0, secret, 0, inbox, 5)
    listener.close()
    _, error = inbox.get(timeout=5)
    assert isinstance(error, PeerLost) and error.rank == 1
    with pytest.raises(PeerLost, match=r"rank 1 \(host b, pid 11\) is lost: its folder is gone"):
        link.put(Message("who"))
    link.close()


def test_a_new_connection_of_a_worker_ends_the_old_one():
    """The old process may be frozen or cut off: nobody else would close it."""
    port = Port()
    ends = [socket.socketpair() for _ in range(2)]
    for mine, _ in ends:
        port.enter(3, SocketEnd(mine, port))
    (first, other), (second, _) = ends
    assert other.recv(1) == b"" and first.fileno() == -1 and second.fileno() >= 0
    port.close()
    for _, theirs in ends:
        theirs.close()
