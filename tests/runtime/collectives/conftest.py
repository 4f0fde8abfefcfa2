"""Groups of ranks for the tests: as threads of this process, or as processes that can be killed and stopped."""

import json
import pathlib
import subprocess
import sys
import threading

import pytest
from kerasoft.runtime import wire
from kerasoft.runtime.collectives import Peer, PeerListener, connect
from kerasoft.runtime.rendezvous import ControlServer

WORKER = pathlib.Path(__file__).with_name("worker.py")


def run_group(world_size, work, transports=("shm", "unix", "tcp"), timeout_s=10.0, **options):
    """`[work(collective) for each rank]`, each in a thread; what a rank raises takes the place of its result."""
    secret = wire.new_secret()
    listeners = [PeerListener("127.0.0.1") for _ in range(world_size)]
    table = tuple(Peer(rank, f"host{rank}", 1000 + rank, listener.address) for rank, listener in enumerate(listeners))
    results = [None] * world_size

    def run(rank):
        try:
            listener = listeners[rank]
            with connect(
                table, rank, secret, 7, timeout_s, listener=listener, transports=transports, **options
            ) as collective:
                results[rank] = work(collective)
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a rank hangs"
    return results


@pytest.fixture
def group():
    """`run_group`, for groups in which nobody is expected to fail."""

    def run(*args, **options):
        results = run_group(*args, **options)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results

    return run


@pytest.fixture
def failing_group():
    """`run_group`: what a rank raises is its result."""
    return run_group


@pytest.fixture
def processes():
    """`start(world_size, transports, timeout_s) -> (server, processes)`: ranks that sum for ever until something ends it."""
    started, servers = [], []

    def start(world_size, transports, timeout_s):
        server = ControlServer(wire.new_secret(), "127.0.0.1", frozen_s=timeout_s)
        servers.append(server)
        server.start_generation(1, world_size)
        for rank in range(world_size):
            job = {
                "address": server.address,
                "secret": server.secret.hex(),
                "rank": rank,
                "transports": transports,
                "timeout_s": timeout_s,
            }
            root = pathlib.Path(__file__).parents[3]
            started.append(subprocess.Popen([sys.executable, str(WORKER), json.dumps(job)], cwd=root))
        return server, started

    yield start
    for process in started:
        process.kill()
        process.wait()
    for server in servers:
        server.close()
