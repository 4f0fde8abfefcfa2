"""The state machines under scripted interleavings, against the published pseudocode and plain loops."""

import itertools

import numpy as np
import pytest
from kerasoft.runtime.collectives.tree import TreeSum
from kerasoft.runtime.servers.clients import downpour, stale_synchronous
from kerasoft.runtime.servers.effects import WHOLE, Ask, Compute, Fetch, Fetched, Go, Pause, Push, Send, Stand
from kerasoft.runtime.servers.machine import SliceServer
from kerasoft.runtime.servers.simulator import Simulation, leads, run

RATE = 0.1


def sgd(params, slots, gradient, iteration, rate):
    return params - np.float32(rate) * gradient, slots


def problem(rows=96, features=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)).astype("float32")
    return x, (x @ np.arange(1, features + 1, dtype="float32")).astype("float32")


def slope(x, y, params):
    return (x.T @ (x @ params - y) / np.float32(len(x))).astype("float32")


def servers_of(params, workers, cuts, **more):
    pieces = np.split(params, cuts)
    more = {"by_clock": False, "rate": RATE, "update": sgd} | more
    update = more.pop("update")
    return [
        SliceServer(
            workers, piece, (), update, state=np.zeros(0, np.float32) if j == 0 else None, sums=1 if j == 0 else 0, **more
        )
        for j, piece in enumerate(pieces)
    ]  # fmt: skip


def simulation(clients, cuts=(4,), **more):
    x, y = problem()
    workers = range(len(clients))
    parts = np.array_split(np.arange(len(x)), len(clients) * 8)

    def gradient(worker, step, params):
        rows = parts[(step * len(clients) + worker) % len(parts)]
        return slope(x[rows], y[rows], params)

    return Simulation(clients, servers_of(np.zeros(6, np.float32), workers, list(cuts), **more), gradient), gradient


def pseudocode(alpha, n_fetch, n_push, steps, gradient_of, parameter_server):
    """DistBelief's Downpour client as printed, with fetches and pushes that happen at once."""
    step, accrued, pushed = 0, np.zeros(6, np.float32), []
    while step < steps:
        if step % n_fetch == 0:
            parameters = parameter_server.copy()
        gradient = gradient_of(step, parameters)
        accrued = accrued + gradient
        parameters = parameters - np.float32(alpha) * gradient
        if step % n_push == 0:
            parameter_server -= np.float32(alpha) * accrued
            pushed.append(accrued)
            accrued = np.zeros(6, np.float32)
        step = step + 1
    return parameter_server, pushed


@pytest.mark.parametrize(("n_fetch", "n_push"), [(1, 1), (1, 5), (3, 2), (5, 5), (2, 7)])
def test_one_client_follows_the_pseudocode(n_fetch, n_push):
    steps = 3 * 35 + 1  # the last step pushes: nothing is left over
    sim, gradient = simulation([downpour(0, steps, n_fetch, n_push)])
    run(sim)
    expected, pushed = pseudocode(RATE, n_fetch, n_push, steps, lambda t, p: gradient(0, t, p), np.zeros(6, np.float32))
    told = [e for e in sim.log if e.what == "push"]
    leftover = (steps - 1) % n_push  # pushed at the epoch's end, which the endless loop of the paper does not have
    assert len(told) == len(pushed) + bool(leftover)
    for ours, theirs in zip(told, pushed, strict=False):
        np.testing.assert_allclose(ours.value[1], theirs, rtol=1e-6, atol=1e-7)
    if not leftover:
        np.testing.assert_allclose(sim.params, expected, rtol=1e-6, atol=1e-7)


def test_line_by_line_under_a_scripted_interleaving():
    """Two clients; every line of the pseudocode is checked where it takes effect."""
    sim, gradient = simulation([downpour(0, 3, 2, 2), downpour(0, 3, 2, 2)])
    zero = np.zeros(6, np.float32)
    assert isinstance(sim.turn(0), Fetch) and isinstance(sim.turn(1), Fetch)  # step mod n_fetch = 0
    sim.deliver(0)
    assert sim.waiting(0) is None and sim.waiting(1) is not None  # each fetch is its own
    sim.turn(0)  # gradient ← gradient(parameters, data)
    g00 = gradient(0, 0, zero)
    sim.turn(0)  # step 0: step mod n_push = 0, accrued = g00 is underway ...
    np.testing.assert_array_equal(sim.params, zero)  # ... and not there yet: pushes are asynchronous
    sim.turn(0)  # step 1: no fetch, on parameters − α gradient
    np.testing.assert_allclose(sim.log[-1].value, zero - np.float32(RATE) * g00, rtol=1e-6)
    g01 = gradient(0, 1, sim.log[-1].value)
    sim.deliver(0)  # the push of step 0 arrives
    np.testing.assert_allclose(sim.params, -np.float32(RATE) * g00, rtol=1e-6)
    sim.deliver(1)  # client 1 fetches only now: it sees that push
    sim.turn(1)
    np.testing.assert_allclose(sim.log[-1].value, -np.float32(RATE) * g00, rtol=1e-6)
    g10 = gradient(1, 0, sim.log[-1].value)
    sim.turn(1)
    assert isinstance(sim.turn(0), Fetch)  # step 1 pushed nothing (1 mod 2), step 2 fetches
    sim.deliver(0)  # before client 1's push
    sim.turn(0)
    np.testing.assert_allclose(sim.log[-1].value, -np.float32(RATE) * g00, rtol=1e-6)  # client 1 is not in it
    g02 = gradient(0, 2, sim.log[-1].value)
    assert sim.turn(0).accrued == 2  # steps 1 and 2: accrued was reset after the push of step 0
    np.testing.assert_allclose(sim.log[-1].value[1], g01 + g02, rtol=1e-6)
    sim.deliver(1)
    sim.deliver(0)
    np.testing.assert_allclose(sim.params, -np.float32(RATE) * (g00 + g10 + (g01 + g02)), rtol=1e-5)
    assert sim.servers[0].counts["staleness"] == 1  # client 0 did not know of g10


def test_pushes_hold_exactly_n_push_gradients():
    sim, _ = simulation([downpour(0, 31, 1, 5)])
    run(sim)
    assert [e.value[0] for e in sim.log if e.what == "push"] == [1, 5, 5, 5, 5, 5, 5]


def test_one_worker_that_fetches_and_pushes_every_step_is_sequential_sgd():
    sim, gradient = simulation([downpour(0, 40, 1, 1)])
    run(sim)
    params = np.zeros(6, np.float32)
    for t in range(40):
        params = params - np.float32(RATE) * gradient(0, t, params)
    assert np.max(np.abs(sim.params - params)) <= 1e-7


def test_three_workers_converge_though_one_is_slow():
    sim, _ = simulation([downpour(0, 150, 2, 2) for _ in range(3)], cuts=(2, 4))
    run(sim, compute_s=lambda w, t: 5.0 if w == 2 else 1.0, latency_s=lambda w: 0.3)
    np.testing.assert_allclose(sim.params, np.arange(1, 7), rtol=1e-3)
    assert sim.servers[0].counts["most_staleness"] > 3


def test_stale_pushes_are_dropped_and_counted():
    sim, _ = simulation([downpour(0, 12, 1, 1), downpour(0, 12, 12, 12)], max_staleness=5)
    run(sim, compute_s=lambda w, t: 1.0)
    first, second = (s.counts for s in sim.servers)
    assert first == second and first["pushes"] == 12 + 2
    assert first["stale_pushes"] == 1 and first["most_staleness"] <= 5


def test_no_gradient_is_lost_at_a_pause():
    def stops(clock):
        return clock + 7

    sim, gradient = simulation([downpour(0, 20, 3, 5, stop_at=7), downpour(0, 20, 3, 5, stop_at=7)], next_stop=stops)
    run(sim, compute_s=lambda w, t: 1.0 + 3 * w)
    for w in (0, 1):
        assert sum(e.value[0] for e in sim.log if e.what == "push" and e.worker == w) == 20
    assert [e.step for e in sim.log if e.what == "go" and e.worker == 0] == [7, 14, 20]
    assert sim.servers[0].snapshot.end


# --- by clock ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(), (4,), (1, 2, 5)])
def test_staleness_zero_is_synchronous_for_any_number_of_servers(cuts):
    sim, gradient = simulation([stale_synchronous(0, 25, 0) for _ in range(3)], cuts=cuts, by_clock=True)
    run(sim, compute_s=lambda w, t: 1.0 + ((t + w) % 3))
    params = np.zeros(6, np.float32)
    for t in range(25):
        total = gradient(0, t, params) + gradient(1, t, params) + gradient(2, t, params)
        params = params - np.float32(RATE) * total
    np.testing.assert_array_equal(sim.params, params)
    assert max(leads(sim.log, range(3))) == 0


@pytest.mark.parametrize("staleness", [1, 3])
def test_nobody_is_ever_more_than_s_clocks_ahead(staleness):
    rng = np.random.default_rng(1)
    slow = rng.uniform(0.5, 6, size=(4, 40))
    sim, _ = simulation([stale_synchronous(0, 40, staleness) for _ in range(4)], by_clock=True)
    run(sim, compute_s=lambda w, t: slow[w, t], latency_s=lambda w: 0.1)
    found = leads(sim.log, range(4))
    assert max(found) == staleness and sim.servers[0].done == 40
    assert [t for t, _ in sim.servers[0].take_reports()] == list(range(40))


def test_staleness_hides_stragglers():
    """One worker at a time is four times slower than the others, each in its turn: synchronous steps all wait for it."""

    def seconds(worker, step):
        return 4.0 if step // 2 % 3 == worker else 1.0

    took = {}
    for staleness in (0, 3):
        sim, _ = simulation([stale_synchronous(0, 60, staleness) for _ in range(3)], by_clock=True)
        took[staleness] = run(sim, compute_s=seconds)
    assert took[0] == 240 and took[3] < 0.62 * took[0]


def test_sums_along_the_fixed_tree_do_not_depend_on_the_workers():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 6)).astype("float32")
    results = []
    for bounds in ([0, 5], [0, 2, 5], [0, 1, 3, 5]):
        workers = range(len(bounds) - 1)
        (server,) = servers_of(np.zeros(6, np.float32), workers, [], by_clock=True, shards=5)
        server.begin_epoch(0)
        for w in reversed(workers):
            tree = TreeSum(bounds[w], bounds[w + 1], 5)
            for shard in range(bounds[w], bounds[w + 1]):
                tree.add(vectors[shard])
            parts = {node: v.copy() for node, v in tree.partials().items()}
            server.handle(Push(w, 0, 0, parts, {n: v[:1].copy() for n, v in parts.items()}))
        results.append(server.params)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_a_push_that_comes_twice_counts_once():
    """A worker that takes another one's place repeats what one of the servers has already."""
    (server,) = servers_of(np.zeros(6, np.float32), (0, 1), [], by_clock=True)
    server.begin_epoch(0)
    one = np.ones(6, np.float32)

    def push(worker, clock):
        return server.handle(Push(worker, 0, clock, {WHOLE: one.copy()}, {WHOLE: one[:1].copy()}))

    push(0, 0)
    assert server.resume(0)[:2] == (0, 1)
    push(0, 0)
    push(1, 0)
    np.testing.assert_allclose(server.params, -2 * RATE * one)
    assert server.counts["repeated_pushes"] == 1
    assert server.handle(Ask(1, 0, 2)) == []  # waits for clock 1
    assert server.behind() == [0, 1]
    server.handle(Stand(1, 0, 1))
    assert server.resume(1)[:2] == (0, 1)  # died while it stood: its place is asked again


def test_a_stop_frees_everybody_who_waits():
    sim, _ = simulation([stale_synchronous(0, 50, 0), stale_synchronous(0, 50, 0)], by_clock=True)
    for w in (0, 1):
        for move in (sim.turn, sim.deliver, sim.turn, sim.turn):
            move(w)
    sim.deliver(0)
    sim.turn(0)
    sim.deliver(0)
    assert isinstance(sim.waiting(0), Fetch)
    for j, server in enumerate(sim.servers):
        sim._take(j, server.adjust(None, True))
    assert isinstance(sim.turn(0), Pause)
    sim.deliver(1)
    assert isinstance(sim.turn(1), Fetch)
    sim.deliver(1)
    assert isinstance(sim.turn(1), Pause)
    sim.deliver(0)
    sim.deliver(1)
    assert sim.turn(0) is None and sim.turn(1) is None
    assert sim.servers[0].snapshot.end and sim.servers[0].snapshot.clock == 1


def test_every_interleaving_of_two_clients_ends_with_the_same_number_of_gradients():
    """All orders of turns and deliveries of two short clients, by random walks."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        clients = [downpour(0, 4, 2, 3), downpour(0, 4, 3, 2)]
        sim, _ = simulation(clients)
        for _ in itertools.count():
            moves = [(w, "turn") for w in (0, 1) if w not in sim.ended and sim.waiting(w) is None]
            moves += [(w, "deliver") for w in (0, 1) if any(sim.underway[w].values())]
            if not moves:
                break
            worker, what = moves[rng.integers(len(moves))]
            getattr(sim, what)(worker)
        assert sim.ended == {0, 1}
        for w in (0, 1):
            assert sum(e.value[0] for e in sim.log if e.what == "push" and e.worker == w) == 4


def test_effects_are_what_the_pseudocode_says():
    client = downpour(0, 4, 2, 2)
    kinds, result = [], None
    while True:
        try:
            effect = client.send(result)
        except StopIteration as end:
            assert end.value == 4
            break
        kinds.append(type(effect))
        result = {
            Fetch: Fetched(np.zeros(2), 0, RATE),
            Compute: np.ones(2),
            Send: None,
            Pause: Go(0, 4, True, 99, RATE, False),
        }[type(effect)]
    assert kinds == [Fetch, Compute, Send, Compute, Fetch, Compute, Send, Compute, Send, Pause]
