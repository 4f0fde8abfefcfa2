"""Frames, messages and the handshake: what goes in comes out, and nothing else gets through."""

import json
import select
import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasoft.runtime import wire
from kerasoft.runtime.errors import HandshakeError, WaitTimeout, WireError

pytestmark = pytest.mark.alone  # seconds are compared


@pytest.fixture
def pair():
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def raw(kind=wire.MESSAGE, head=b"{}", body=b"", head_bytes=None, body_bytes=None, magic=wire.MAGIC):
    sizes = (len(head) if head_bytes is None else head_bytes, len(body) if body_bytes is None else body_bytes)
    return wire.HEADER.pack(magic, kind, 0, 0, -1, 0, *sizes) + head + body


def described(arrays, fields=None):
    return json.dumps({"kind": "x", "fields": fields or {}, "arrays": arrays}).encode()


arrays = st.dictionaries(
    st.text(max_size=5),
    st.tuples(st.sampled_from(sorted(wire.DTYPES)), st.lists(st.integers(0, 4), max_size=3)),
    max_size=4,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(specs=arrays, fields=st.dictionaries(st.text(max_size=5), values, max_size=3), seed=st.integers(0, 99))
def test_messages_round_trip(specs, fields, seed):
    random = np.random.default_rng(seed)
    given_arrays = {
        name: random.integers(0, 2, shape).astype(dtype)
        if dtype == "bool"
        else random.integers(0, 99, shape).astype(dtype)
        for name, (dtype, shape) in specs.items()
    }
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        sent = wire.send_message(here, wire.Message("kind", fields, given_arrays), 5)
        message = wire.receive_message(there, 5, "a test")
    assert message.kind == "kind" and message.fields == fields and list(message.arrays) == list(given_arrays)
    for name, array in given_arrays.items():
        got = message.arrays[name]
        assert got.dtype == array.dtype and got.shape == array.shape and got.tobytes() == array.tobytes()
    assert sent >= sum(array.nbytes for array in given_arrays.values()) + wire.HEADER_BYTES


def test_a_message_larger_than_any_buffer(pair):
    big = np.random.default_rng(0).standard_normal((3, 1_000_000)).astype(np.float32)
    heard = []
    thread = threading.Thread(target=wire.send_message, args=(pair[0], wire.Message("w", {}, {"a": big.T}), 10))
    thread.start()
    message = wire.receive_message(pair[1], 10, "weights", heard=lambda: heard.append(1))
    thread.join()
    assert message.arrays["a"].tobytes() == np.ascontiguousarray(big.T).tobytes()
    assert len(heard) > 1


@pytest.mark.parametrize(
    "data, text",
    [
        (b"GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n" + b" " * 20, "should start with b'KSW1', got b'GET '"),
        (raw(magic=b"KSW2"), "does not speak this protocol"),
        (raw(kind=3), "expected a message while waiting for a test, got a frame of kind 3"),
        (raw(head=b"", head_bytes=1 << 40), "announces 1099511627776 bytes of fields"),
        (raw(head=b"", body_bytes=1 << 60), "at most 16777216 and 17179869184 are taken"),
        (raw(head=b"\xff\xfe"), "no valid JSON"),
        (raw(head=b"[" * 100_000), "no valid JSON"),
        (raw(head=b"{}"), "no valid JSON description: KeyError"),
        (raw(head=described([["a", "object", [1]]])), "no valid JSON description: KeyError"),
        (raw(head=described([["a", "float32", [10**12]]])), "describes 4000000000000 bytes of arrays and carries 0"),
        (raw(head=described([["a", "float32", [-1]]])), "arrays of sizes >= 0"),
        (raw(head=described([["a", "float32", ["x"]]])), "no valid JSON description: ValueError"),
        (raw(head=described([], fields=[1])), "an object of fields"),
    ],
)
def test_what_is_no_message(pair, data, text):
    thread = threading.Thread(target=wire.write_all, args=(pair[0], [memoryview(data)], 5, "garbage"))
    thread.start()
    with pytest.raises(WireError) as caught:
        wire.receive_message(pair[1], 5, "a test")
    assert text in str(caught.value)
    thread.join()


def test_what_cannot_travel():
    with pytest.raises(WireError, match="array 'a' of message 'm' has dtype object"):
        wire.message_buffers(wire.Message("m", {}, {"a": np.array([{}])}))
    with pytest.raises(WireError, match="at most 16777216 and .* travel. Send it in parts"):
        wire.message_buffers(wire.Message("m", {"text": "x" * (17 << 20)}))


def test_waits_are_named(pair):
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match="waited 0.1 s for the moon, and no byte moved"):
        wire.receive_message(pair[1], 0.1, "the moon")
    assert 0.09 < time.monotonic() - began < 1
    pair[0].send(raw()[:20])
    with pytest.raises(WaitTimeout, match="waited 0.2 s for the rest of a frame"):
        wire.receive_message(pair[1], 5, "the moon", body_timeout_s=0.2)
    with pytest.raises(WaitTimeout, match="for message 'w'"):
        wire.send_message(pair[0], wire.Message("w", {}, {"a": np.zeros(10_000_000)}), 0.1)
    pair[0].close()
    with pytest.raises(wire.Closed, match="closed while waiting for the sun"):
        wire.read_exact(pair[1], memoryview(bytearray(500_000_000)), 5, "the sun")


def shake(pair, asked_secret, answering_secret, hello=None, admit=lambda hello: 0):
    """What each end of a handshake gave or raised."""
    results = [None, None]

    def client():
        try:
            wire.ask(pair[0], asked_secret, hello or wire.Hello(b"P", 3, 1, 0), 2)
        except Exception as error:
            results[0] = error
            pair[0].close()

    thread = threading.Thread(target=client)
    thread.start()
    try:
        results[1] = wire.answer(pair[1], answering_secret, admit, 2)
    except Exception as error:
        results[1] = error
    thread.join()
    return results


def test_handshake(pair):
    secret = wire.new_secret()
    assert shake(pair, secret, secret) == [None, wire.Hello(b"P", 3, 1, 0)]


def test_handshake_with_another_secret(pair):
    asked, answered = shake(pair, wire.new_secret(), wire.new_secret())
    assert isinstance(asked, HandshakeError) and "does not hold this fit's secret" in str(asked)
    assert isinstance(answered, wire.Closed)


def test_handshake_refused(pair):
    secret = wire.new_secret()
    asked, answered = shake(pair, secret, secret, admit=lambda hello: 1 if hello.generation != 4 else 0)
    assert str(asked) == "rank 1 of generation 3 was refused: it is at another generation."
    assert "refused rank 1 of generation 3" in str(answered)


def test_a_client_without_the_secret_is_turned_away(pair):
    """It says hello, gets the server's proof, and can at best send that back or guess."""
    hello = wire.HELLO.pack(wire.HELLO_MAGIC, b"P"[0], 3, 1, 0, bytes(32))
    pair[0].send(hello)
    thread = threading.Thread(target=lambda: (time.sleep(0.1), pair[0].send(pair[0].recv(65)[33:])))
    thread.start()
    with pytest.raises(HandshakeError, match="calls itself rank 1 of generation 3 does not hold"):
        wire.answer(pair[1], wire.new_secret(), lambda hello: 0, 2)
    thread.join()


def test_a_recorded_handshake_is_worth_nothing(pair):
    secret = wire.new_secret()

    class Recorder:
        def __init__(self, sock):
            self.sock, self.sent = sock, b""

        def sendmsg(self, buffers):
            self.sent += b"".join(buffers)
            return self.sock.sendmsg(buffers)

        def __getattr__(self, name):
            return getattr(self.sock, name)

        def fileno(self):
            return self.sock.fileno()

    recorder = Recorder(pair[0])
    assert shake((recorder, pair[1]), secret, secret)[1].rank == 1
    here, there = socket.socketpair()
    with here, there:
        there.setblocking(False)
        here.send(recorder.sent)
        with pytest.raises(HandshakeError, match="does not hold this fit's secret"):
            wire.answer(there, secret, lambda hello: 0, 2)


@pytest.mark.parametrize("data", [b"", b"K", b"\0" * 30])
def test_a_silent_stranger_has_limited_time(pair, data):
    pair[0].send(data)
    began = time.monotonic()
    with pytest.raises(WaitTimeout):
        wire.answer(pair[1], wire.new_secret(), lambda hello: 0, 0.2)
    assert time.monotonic() - began < 1


def test_a_dripping_stranger_has_limited_time(pair):
    stop = threading.Event()

    def drip():
        while not stop.wait(0.05):
            pair[0].send(b"K")

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    with pytest.raises(WaitTimeout):
        wire.answer(pair[1], wire.new_secret(), lambda hello: 0, 0.3)
    assert time.monotonic() - began < 1
    stop.set()
    thread.join()


def test_every_interface_is_refused():
    for host in ("", "0.0.0.0", "::"):
        with pytest.raises(ValueError, match="opens every interface"):
            wire.listen(host)


def test_a_connection_that_this_end_closed_is_closed():
    left, right = socket.socketpair()
    left.setblocking(False)
    with right:
        left.close()
        with pytest.raises(wire.Closed, match="this end closed"):
            wire._wait(left, select.POLLIN, None, "an answer")
