"""Ranks as processes: killed and stopped in the middle of a step. Survivors and the driver say who it was."""

import os
import signal
import time

import pytest

pytestmark = pytest.mark.alone  # seconds are compared

TRANSPORTS = {"tcp": ("tcp",), "unix": ("unix", "tcp"), "shm": ("shm", "unix", "tcp")}
carried = pytest.mark.parametrize("transport", TRANSPORTS)
VICTIM = 1
PHASES = ("reduce_scatter", "all_gather", "all_reduce_small")


def running(server, world_size, transport):
    """Waits until all ranks are in their steps; the victim's row of the table."""
    table = server.wait_formed(30)
    seen = set()
    for event in server.events(30):
        assert event.kind in ("formed", "running"), event
        if event.kind == "running":
            assert event.fields["transport"] == transport
            seen.add(event.rank)
        if len(seen) == world_size:
            time.sleep(0.6)  # until a heartbeat has told the driver a step
            return table[VICTIM]
    raise AssertionError(f"only ranks {seen} got going")


def collect(server, timeout_s, wanted):
    """Events by kind until those `wanted` ((kind, rank) pairs) are there."""
    found = {}
    end = time.monotonic() + timeout_s
    while wanted - found.keys() and time.monotonic() < end:
        event = server.next_event(0.2)
        if event is not None:
            found[event.kind, event.rank] = (event, time.monotonic())
    assert not wanted - found.keys(), f"missing {wanted - found.keys()}, got {list(found)}"
    return found


@carried
def test_killed(processes, transport):
    server, started = processes(3, TRANSPORTS[transport], 20.0)
    victim = running(server, 3, transport)
    killed_at = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)
    found = collect(server, 10, {("error", 0), ("error", 2), ("lost", VICTIM)})
    for rank in (0, 2):
        fields = found["error", rank][0].fields
        assert fields["at"] - killed_at < 1.0
        assert fields["rank"] == VICTIM and fields["pid"] == victim.pid and fields["host"] == victim.host
        assert fields["step"] > 0 and fields["phase"] in PHASES
        assert f"rank 1 (host {victim.host}, pid {victim.pid})" in fields["text"]
    assert "PeerLost" in {found["error", rank][0].fields["kind"] for rank in (0, 2)}
    lost, noticed_at = found["lost", VICTIM]
    assert noticed_at - killed_at < 1.5
    assert lost.fields["pid"] == victim.pid and lost.fields["phase"] == "sync"
    assert "the process or its host died" in lost.fields["reason"]


@carried
def test_stopped(processes, transport):
    timeout_s = 1.2
    server, started = processes(3, TRANSPORTS[transport], timeout_s)
    victim = running(server, 3, transport)
    stopped_at = time.monotonic()
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        found = collect(server, 10, {("error", 0), ("error", 2), ("frozen", VICTIM)})
        status = server.status()[VICTIM]
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    for rank in (0, 2):
        fields = found["error", rank][0].fields
        assert timeout_s * 0.9 < fields["at"] - stopped_at < timeout_s + 0.8
        assert (fields["kind"], fields["rank"], fields["pid"]) == ("PeerFrozen", VICTIM, victim.pid)
        assert fields["step"] > 0 and fields["phase"] in PHASES
        assert f"rank 1 (host {victim.host}, pid {victim.pid}) made no progress" in fields["text"]
    frozen, noticed_at = found["frozen", VICTIM]
    assert noticed_at - stopped_at < timeout_s + 0.8
    assert frozen.fields["pid"] == victim.pid and frozen.fields["step"] > 0 and frozen.fields["phase"] == "sync"
    assert status.silent_s >= timeout_s and f"step {frozen.fields['step']}, sync" in str(status)


@carried
def test_no_step_is_mixed_with_another(processes, transport):
    """Thousands of sums by processes that really run side by side, each checked; see worker.py."""
    server, started = processes(3, TRANSPORTS[transport], 20.0)
    running(server, 3, transport)
    time.sleep(1.0)
    assert [status.step > 20 for status in server.status()] == [True] * 3
    assert server.next_event(0) is None  # no rank found a wrong sum
