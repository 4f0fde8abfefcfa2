"""The control connection: forming, messages both ways, losses, generations, strangers."""

import os
import socket
import threading
import time

import numpy as np
import pytest
from kerasoft.runtime import control_client, rendezvous, wire
from kerasoft.runtime.collectives import Peer, PeerListener, connect
from kerasoft.runtime.control_client import ControlClient
from kerasoft.runtime.errors import DriverLost, HandshakeError, PeerFrozen, PeerLost, WaitTimeout
from kerasoft.runtime.rendezvous import ControlServer

pytestmark = pytest.mark.alone  # seconds are compared

SECRET = wire.new_secret()


@pytest.fixture
def server():
    with ControlServer(SECRET, "127.0.0.1") as server:
        server.start_generation(1, 2)
        yield server


def in_threads(*works):
    """Results of functions run side by side; raises what they raise."""
    results = [None] * len(works)

    def run(i):
        try:
            results[i] = works[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def joined(server, ranks=(0, 1), generation=1):
    """Clients that have all joined."""

    def join(rank):
        client = ControlClient(server.address, SECRET, generation, rank, timeout_s=10)
        client.table = client.join({"tcp": ["127.0.0.1", 1000 + rank]}, executor=f"e{rank}", capabilities={"cpus": 2})
        return client

    return in_threads(*(lambda rank=rank: join(rank) for rank in ranks))


def next_of(server, kind, timeout_s=5):
    for event in server.events(timeout_s):
        if event.kind == kind:
            return event
    raise AssertionError(f"no {kind!r} within {timeout_s} s")


def test_everybody_gets_the_table(server):
    clients = joined(server)
    for client in clients:
        assert client.table == server.table
        assert client.local_address == "127.0.0.1"
    first, second = server.table
    assert (first.rank, first.pid, first.executor, first.capabilities) == (0, os.getpid(), "e0", {"cpus": 2})
    assert second.address == {"tcp": ["127.0.0.1", 1001]} and second.host == socket.gethostname()
    formed = server.next_event(5)
    assert formed.kind == "formed" and [row[0] for row in formed.fields["table"]] == [0, 1]
    assert server.wait_formed(0) == server.table and server.missing() == []
    for client in clients:
        client.close()
    assert server.next_event(0.3) is None  # a goodbye is no loss


def test_who_hears_of_the_table_may_send_at_once(server, monkeypatch):
    send = rendezvous.ControlServer._send

    def late(self, member, message):
        if message.kind == rendezvous.TABLE:
            time.sleep(0.2)  # as a thread that gets no core
        send(self, member, message)

    monkeypatch.setattr(rendezvous.ControlServer, "_send", late)

    def answer():
        next_of(server, "formed")
        for rank in (0, 1):
            server.send(rank, "start")

    clients, _ = in_threads(lambda: joined(server), answer)
    for client in clients:
        assert client.table == server.table and client.receive(5, "the start").kind == "start"
        client.close()


def test_messages_both_ways(server):
    zero, one = joined(server)
    weights = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    one.send("slice", {"from": 3}, {"params": weights, "count": np.array([7], np.int64)})
    message = next_of(server, "slice")
    assert (message.rank, message.generation, message.fields) == (1, 1, {"from": 3})
    assert message.arrays["params"].tobytes() == weights.tobytes() and message.arrays["count"] == 7
    server.send(0, "decision", {"stop": True}, {"params": weights[:5]})
    server.broadcast("hello all")
    answer = zero.receive(5, "a decision")
    assert answer.kind == "decision" and answer.fields == {"stop": True}
    assert answer.arrays["params"].tobytes() == weights[:5].tobytes()
    assert zero.receive(5).kind == "hello all" and one.receive(5).kind == "hello all"
    assert one.poll() is None
    server.send(1, "stop")
    end = time.monotonic() + 5
    while (polled := one.poll()) is None and time.monotonic() < end:
        time.sleep(0.01)
    assert polled.kind == "stop"
    with pytest.raises(WaitTimeout, match="rank 1 waited 0.05 s for the decision after epoch 3"):
        one.receive(0.05, "the decision after epoch 3")
    zero.close(), one.close()


def test_many_threads_may_send(server):
    zero, one = joined(server)
    in_threads(
        *(lambda i=i: [one.send("n", {"i": i, "k": k}, {"a": np.full(5000, i)}) for k in range(20)] for i in range(4))
    )
    seen = []
    for event in server.events(0.5):
        if event.kind == "n":
            assert (event.arrays["a"] == event.fields["i"]).all()
            seen.append((event.fields["i"], event.fields["k"]))
    assert sorted(seen) == [(i, k) for i in range(4) for k in range(20)]
    assert all([k for j, k in seen if j == i] == list(range(20)) for i in range(4))
    zero.close(), one.close()


def test_a_loss_is_an_event(server):
    zero, one = joined(server)
    one.at(17, "reduce_scatter")
    time.sleep(control_client.HEARTBEAT_S + 0.2)
    began = time.monotonic()
    one.abandon()
    lost = next_of(server, "lost")
    assert time.monotonic() - began < 1
    assert lost.rank == 1 and lost.fields["pid"] == os.getpid() and lost.fields["executor"] == "e1"
    assert (lost.fields["step"], lost.fields["phase"]) == (17, "reduce_scatter")
    assert lost.fields["reason"] == "its connection closed: the process or its host died"
    with pytest.raises(PeerLost, match="rank 1 is not connected, so it cannot get message 'x'"):
        server.send(1, "x")
    server.broadcast("still here")
    assert zero.receive(5).kind == "still here"
    status = server.status()[1]
    assert not status.connected and str(status).endswith(f"pid {os.getpid()}, step 17, reduce_scatter)")
    zero.close()


def test_the_driver_dies(server):
    zero, one = joined(server)
    server.close()
    with pytest.raises(DriverLost, match="rank 0 lost the driver while waiting for a decision"):
        zero.receive(5, "a decision")
    with pytest.raises(DriverLost):
        zero.poll()
    with pytest.raises(DriverLost, match="rank 1 could not send 'x' to the driver"):
        for _ in range(100):
            one.send("x", {}, {"a": np.zeros(100_000)})
    zero.close(), one.close()


def test_a_message_that_does_not_fit_is_an_error_of_the_worker(server, monkeypatch):
    """Not a silence: the driver would wait for it, and blame the connection."""
    zero, one = joined(server)
    receive = wire.receive_message

    def small(*args, **more):
        if threading.current_thread().name == "kerasoft-inbox":
            raise MemoryError("Unable to allocate 192. MiB")
        return receive(*args, **more)

    monkeypatch.setattr(wire, "receive_message", small)
    server.broadcast("start")
    assert zero.receive(5).kind == one.receive(5).kind == "start"  # was being waited for
    with pytest.raises(MemoryError, match="no room for a message of the driver: Unable to allocate 192"):
        zero.receive(5)
    zero.send("failed")  # it can still say so
    next_of(server, "failed")
    zero.close(), one.close()


def test_a_new_generation_ends_the_old_one(server):
    zero, one = joined(server)
    one.send("old news")
    next_of(server, "old news")
    one.send("unread")
    time.sleep(0.1)
    server.start_generation(2, 1)
    with pytest.raises(DriverLost):
        zero.receive(5, "anything")
    with pytest.raises(HandshakeError, match="rank 0 of generation 1 was refused: it is at another generation"):
        ControlClient(server.address, SECRET, 1, 0, timeout_s=5)
    with pytest.raises(HandshakeError, match="does not expect this rank"):
        ControlClient(server.address, SECRET, 2, 1, timeout_s=5)
    (again,) = joined(server, ranks=(0,), generation=2)
    with pytest.raises(HandshakeError, match="this rank has joined already"):
        ControlClient(server.address, SECRET, 2, 0, timeout_s=5)
    again.send("new")
    kinds = [event.kind for event in server.events(0.3)]
    assert kinds == ["formed", "new"]
    with pytest.raises(ValueError, match="generation 2 should be greater than the last one, 2"):
        server.start_generation(2, 1)
    again.close(), zero.close(), one.close()


def test_missing_workers_are_named(server):
    client = ControlClient(server.address, SECRET, 1, 1, timeout_s=5)
    with pytest.raises(WaitTimeout, match="rank 1 waited 0.2 s for the other workers to join"):
        client.join(timeout_s=0.2)
    with pytest.raises(WaitTimeout, match=r"waited 0.1 s for 2 workers; ranks \[0\] have not joined"):
        server.wait_formed(0.1)
    client.close()


def test_no_driver_there():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(
        WaitTimeout, match=f"rank 3 could not reach the driver at 127.0.0.1:{port} within 0.3 s: .*refused"
    ):
        ControlClient(("127.0.0.1", port), SECRET, 1, 3, timeout_s=0.3)


def test_frozen_workers_are_reported_once():
    with ControlServer(SECRET, "127.0.0.1", frozen_s=0.4) as server:
        server.start_generation(5, 1)
        sock = wire.dial(server.address, 5)
        wire.ask(sock, SECRET, wire.Hello(b"C", 5, 0, -1), 5)
        hello = {"host": "h", "pid": 42, "address": {}, "executor": "3", "capabilities": {}}
        wire.send_message(sock, wire.Message("hello", hello), 5)
        wire.send_message(sock, wire.Message("heartbeat", {"step": 8, "phase": "compute"}), 5)
        frozen = next_of(server, "frozen")
        assert 0.4 <= frozen.fields["silent_s"] < 1
        assert (frozen.fields["pid"], frozen.fields["step"], frozen.fields["phase"]) == (42, 8, "compute")
        assert server.next_event(0.6) is None
        sock.close()
        assert next_of(server, "lost").fields["host"] == "h"


def strangers(address):
    """Sockets that do everything wrong at a port: kept open until closed by the caller."""

    def dial():
        return socket.create_connection(address, timeout=5)

    silent = [dial() for _ in range(5)]
    half, http, noise, oversized, wrong_key, replay = (dial() for _ in range(6))
    half.send(b"KSH1")
    http.send(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100)
    noise.send(os.urandom(5000))
    oversized.send(wire.HEADER.pack(wire.MAGIC, 1, 0, 0, 0, 0, 1 << 62, 1 << 62) + bytes(100))
    hello = wire.HELLO.pack(wire.HELLO_MAGIC, b"C"[0], 1, 0, -1, bytes(32))
    wrong_key.send(hello)
    wrong_key.send(os.urandom(32))
    replay.send(hello * 3)
    return [*silent, half, http, noise, oversized, wrong_key, replay]


def test_strangers_at_the_control_port(server):
    uninvited = strangers(server.address)
    began = time.monotonic()
    clients = joined(server)
    assert time.monotonic() - began < 3
    for client in clients:
        client.close()
    for sock in uninvited:
        sock.close()
    kinds = {event.kind for event in server.events(0.3)}
    assert kinds == {"formed"}
    assert server.refused >= 5


def test_more_strangers_than_places(server, monkeypatch):
    """Silent connections may take all places for one handshake timeout; workers try again."""
    monkeypatch.setattr(wire.answer, "__defaults__", (0.5,))
    uninvited = [socket.create_connection(server.address) for _ in range(rendezvous.MAX_STRANGERS + 20)]
    clients = joined(server)
    for sock in [*clients, *uninvited]:
        sock.close()


def test_an_oversized_message_of_a_worker_ends_it(server):
    zero, one = joined(server)
    one._sock.send(wire.HEADER.pack(wire.MAGIC, wire.MESSAGE, 0, 0, 0, 0, 1 << 50, 0))
    lost = next_of(server, "lost")
    assert lost.rank == 1 and "announces 1125899906842624 bytes of fields" in lost.fields["reason"]
    zero.close(), one.abandon()


def test_the_wrong_driver(server):
    with pytest.raises(HandshakeError, match="does not hold this fit's secret"):
        ControlClient(server.address, wire.new_secret(), 1, 0, timeout_s=5)
    with pytest.raises(ValueError, match="the secret should have 32 bytes, got 3"):
        ControlServer(b"abc", "127.0.0.1")


def peers():
    listeners = [PeerListener("127.0.0.1") for _ in range(2)]
    return listeners, tuple(Peer(rank, "h", 7 + rank, listener.address) for rank, listener in enumerate(listeners))


@pytest.mark.parametrize("transports", [("tcp",), ("unix",), ("shm",)])
def test_strangers_at_a_peer_port(transports):
    listeners, table = peers()
    tcp = tuple(table[0].address["tcp"])
    uninvited = strangers(tcp)
    for _ in range(3):
        silent = socket.socket(socket.AF_UNIX)
        silent.connect("\0" + table[0].address["unix"])
        uninvited.append(silent)

    def intrude(secret, hello):
        sock = wire.dial(tcp, 5)
        with sock, pytest.raises((HandshakeError, wire.Closed)):
            wire.ask(sock, secret, hello, 5)
            wire.read_exact(sock, memoryview(bytearray(1)), 5, "an end")

    def work(rank):
        with connect(table, rank, SECRET, 4, 10, listener=listeners[rank], transports=transports) as collective:
            return float(collective.all_reduce(np.ones(10, np.float32))[0])

    def second():
        intrude(wire.new_secret(), wire.Hello(b"P", 4, 1, 0))  # wrong key
        intrude(SECRET, wire.Hello(b"P", 3, 1, 0))  # another generation
        intrude(SECRET, wire.Hello(b"P", 4, 0, 0))  # a rank not expected
        intrude(SECRET, wire.Hello(b"C", 4, 1, 0))  # another kind of connection
        return work(1)

    assert in_threads(lambda: work(0), second) == [2.0, 2.0]
    for sock in uninvited:
        sock.close()
    with pytest.raises(ConnectionRefusedError):  # once all are connected the port is closed
        socket.create_connection(tcp, timeout=1)


def test_a_peer_that_never_comes():
    listeners, table = peers()
    with pytest.raises(PeerFrozen, match=r"rank 1 \(host h, pid 8\) did not connect to rank 0 within 0.2 s"):
        connect(table, 0, SECRET, 1, 0.2, listener=listeners[0])
    with pytest.raises(PeerLost, match=r"rank 0 \(host h, pid 7\) takes no connection from rank 1: .*refused"):
        connect(table, 1, SECRET, 1, 0.5, listener=listeners[1])


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system cannot be told")
def test_a_worker_gives_up_a_driver_that_acknowledges_nothing(server):
    client = ControlClient(server.address, SECRET, 1, 0, timeout_s=10)
    timeout = client._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    client.close()
    assert timeout == 1000 * control_client.UNREACHABLE_S == 60_000
