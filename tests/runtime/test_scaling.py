"""The scaling model: closed forms, schedules message by message, the event-driven simulator, measured points, limits."""

import dataclasses
import math

import numpy as np
import pytest
from kerasoft.runtime import (
    LBFGS,
    AllReduce,
    Downpour,
    DriverReduce,
    LocalSGD,
    ParameterAveraging,
    ParameterServer,
    ShuffleAllReduce,
    StaleSynchronous,
    TopK,
)
from kerasoft.runtime.collectives.topology import schedule
from kerasoft.runtime.scaling import Failures, Job, Network, Spark, Stragglers, predict
from kerasoft.runtime.scaling.__main__ import STRATEGIES, main
from kerasoft.runtime.scaling.costs import all_reduce_s, clock_steps, overlapped_steps
from kerasoft.runtime.servers.clients import downpour, stale_synchronous
from kerasoft.runtime.servers.machine import SliceServer
from kerasoft.runtime.servers.simulator import Simulation, run

PLAIN = Network(1e-4, 1e-9, message_s=0, add_s=1e-10, incast=0)


def message_by_message(plan, sizes, network):
    """Seconds of a schedule: for each round alpha, and what its busiest rank sends or receives and adds or copies."""
    total = 0.0
    for half in (plan.reduce, plan.gather):
        held = [[half is plan.reduce] * len(sizes) for _ in sizes]
        for transfers in half:
            sent, received, passed = ([0] * len(sizes) for _ in range(3))
            for source, target, what in transfers:
                for s in what:
                    sent[source] += sizes[s]
                    received[target] += sizes[s]
                    if held[target][s] or plan.routed:
                        passed[target] += sizes[s]
            for source, _, what in transfers:
                for s in what:
                    held[source][s] = False
            for _, target, what in transfers:
                for s in what:
                    held[target][s] = half is plan.reduce
            each = zip(sent, received, passed, strict=True)
            total += network.alpha_s + max(network.byte_s * max(o, i) + network.add_s * more for o, i, more in each)
    return total


@pytest.mark.parametrize("nodes", [4, 8, 16])
@pytest.mark.parametrize("topology", ["direct", "ring", "tree"])
def test_topologies_cost_what_their_messages_cost(topology, nodes):
    expected = message_by_message(schedule(topology, tuple(range(nodes))), [1000] * nodes, PLAIN)
    assert all_reduce_s(PLAIN, nodes, 1000 * nodes, topology) == pytest.approx(expected, rel=1e-12)


def test_two_workers_by_hand():
    # 1e6 parameters: 4 MB, each half of it to the other, twice: 2 alpha + 4 MB * beta + 2 MB * add
    exchange = 2e-4 + 4e-3 + 2e-4
    job = Job(1e6, 0.1, 2, PLAIN, update_s=1e-9)
    p = predict(AllReduce(), job)
    assert p.step_s == pytest.approx(0.1 + exchange + 0.5e-3)
    assert p.sync_s == pytest.approx(exchange) and p.wait_s == pytest.approx(0, abs=1e-12)
    assert p.efficiency == pytest.approx((0.1 + 1e-3) / p.step_s)
    assert p.sent_bytes == 4e6
    assert predict(StaleSynchronous(0), job).step_s == pytest.approx(p.step_s)  # the same messages
    assert predict(LocalSGD(10), job).step_s == pytest.approx(0.1 + 1e-3 + exchange / 10)
    assert predict(ParameterAveraging(5), job).step_s == pytest.approx(0.1 + 1e-3 + 3 * exchange / 5)
    assert predict(ParameterAveraging(5, combine="gradients"), job).step_s == pytest.approx(
        0.1 + 1e-3 / 5 + exchange / 5
    )
    hidden = predict(AllReduce(double_buffering=True), job)
    assert hidden.step_s == pytest.approx(0.1 + 0.5e-3 + exchange / job.steps)  # an epoch's last one is not hidden
    assert predict(AllReduce(compression=TopK(0.001)), job).sent_bytes == 8e3
    assert predict(ParameterServer(2), job).step_s == pytest.approx(0.1 + 2e-4 + 8e-3 + 4e-4 + 0.5e-3)
    assert predict(Downpour(5, 5), job).sent_bytes == pytest.approx(4e6 / 2 * 2 / 5)
    spark = Spark(0.1, 0.01, 0.001, 0)
    of_spark = Job(1e6, 0.1, 2, PLAIN, update_s=0, spark=spark)
    assert predict(ShuffleAllReduce(), of_spark).scheduling_s == pytest.approx(0.1 + 0.06 + 0.008)
    assert predict(DriverReduce(), of_spark).scheduling_s == pytest.approx(0.1 + 0.02)


def test_one_worker_exchanges_nothing():
    job = Job(1e6, 0.1, 1)
    for strategy in (AllReduce(), AllReduce(topology="auto"), LocalSGD(3), StaleSynchronous(2), Downpour()):
        assert predict(strategy, job).step_s == pytest.approx(job.compute_s + 1e6 * job.update_s), strategy


def test_double_buffering_takes_the_longer_of_compute_and_exchange():
    assert overlapped_steps(np.full((10, 3), 2.0), 5.0) == pytest.approx(2 + 10 * 5)
    assert overlapped_steps(np.full((10, 3), 5.0), 2.0) == pytest.approx(10 * 5 + 2)


def test_buckets_by_hand():
    job = Job(1e6, 0.3, 2, PLAIN, update_s=0)
    each = 2e-4 + 2e-3 + 1e-4  # of half a megabyte of numbers
    # buckets are there after 0.1 + 0.1 and 0.1 + 0.2 s: the first one's exchange is hidden, the last one's is not
    assert predict(AllReduce(buckets=2), job).step_s == pytest.approx(0.3 + each)
    assert predict(AllReduce(buckets=2), job).sent_bytes == predict(AllReduce(), job).sent_bytes
    slow = dataclasses.replace(
        job, network=dataclasses.replace(PLAIN, byte_s=1e-7)
    )  # 0.2003 s each: the second one waits
    assert predict(AllReduce(buckets=2), slow).step_s == pytest.approx(0.2 + 2 * (2e-4 + 0.2 + 1e-4))
    uneven = dataclasses.replace(slow, buckets=(0.9, 0.1))
    shown = 0.28 + (2e-4 + 0.36 + 1.8e-4) + (2e-4 + 0.04 + 2e-5)
    assert predict(AllReduce(buckets=2), uneven).step_s == pytest.approx(shown)
    busy = dataclasses.replace(
        job, update_s=2e-8
    )  # 10 ms of one rank's half of a vector, 5 of a bucket's; they take the processor
    assert predict(AllReduce(buckets=2), busy).step_s == pytest.approx(0.3 + 0.01 + each)
    with pytest.raises(ValueError, match=r"Job: buckets needs shares above 0 that add up to 1, got \(0.5, 0.6\)"):
        Job(1e6, 0.3, 2, buckets=(0.5, 0.6))


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_waiting_is_that_of_the_event_driven_simulator(staleness):
    times = Stragglers(0.3, 0.25, 4, seed=1).draw(40, 5)
    one = np.zeros(1, np.float32)

    def simulated(client, by_clock):
        server = SliceServer(
            range(5), one, (), lambda p, s, g, i, r: (p, s), by_clock=by_clock, state=np.zeros(0, np.float32), sums=1
        )
        made = Simulation([client() for _ in range(5)], [server], lambda w, t, p: one)
        return run(made, compute_s=lambda w, t: times[t, w])

    expected = simulated(lambda: stale_synchronous(0, 40, staleness), True)
    assert clock_steps(times, staleness, 0.0, 0.0) == pytest.approx(expected, rel=1e-9)
    free = Job(1, 1.0, 5, Network(0, 0, 0, 0, 0), Stragglers(0.3, 0.25, 4, seed=1), update_s=0, steps=40)
    assert predict(StaleSynchronous(staleness), free).step_s * 40 == pytest.approx(expected, rel=1e-9)
    asynchronous = simulated(lambda: downpour(0, 40, 1, 1), False)
    assert predict(Downpour(1, 1), free).step_s * 40 == pytest.approx(asynchronous, rel=1e-9)


MEASURED = {  # docs/performance.md, tests/benchmarks/stragglers.py: three workers, 20 ms, by chance 80 ms
    "AllReduce": (AllReduce(), 56.7),
    "s = 0": (StaleSynchronous(0), 56.4),
    "s = 1": (StaleSynchronous(1), 45.1),
    "s = 3": (StaleSynchronous(3), 43.5),
    "s = 6": (StaleSynchronous(6), 41.1),
    "Downpour": (Downpour(1, 1), 42.1),
}


@pytest.mark.parametrize("name", MEASURED)
def test_measured_stragglers_within_ten_percent(name):
    strategy, ms = MEASURED[name]
    # 60 steps as measured; the chances of other seeds are other ones, so their mean is compared
    said = [
        predict(
            strategy,
            Job(
                1, 0.020, 3, Network(0, 0, 0, 0, 0), Stragglers(0, 0.25, 4, seed), update_s=0, other_s=0.0025, steps=60
            ),
        ).step_s
        for seed in range(40)
    ]
    assert np.mean(said) * 1e3 == pytest.approx(ms, rel=0.10)


# docs/scaling.md, tests/benchmarks/limited_links.py: 700,000 parameters, alpha and beta as two ranks measured them. Not here:
# direct exchange of two at 25 Mbit/s (11 % off), and 16 in a ring while other work kept this machine's cores busy
LINKS = {100: (117e-6, 8.484e-8, 0.3), 25: (125e-6, 3.3891e-7, 1.0), 1000: (57e-6, 9.06e-9, 0.6)}
# Mbit/s: alpha, beta, seconds of sleep; at 1000 beta was fitted to two ranks and direct exchange


@pytest.mark.parametrize(
    "mbit, nodes, topology, ms",
    [
        (100, 2, "direct", 535.4), (100, 4, "direct", 699.5), (100, 8, "direct", 768.1), (100, 16, "direct", 936.3),
        (100, 2, "ring", 537.5), (100, 4, "ring", 650.8), (100, 8, "ring", 715.9), (100, 16, "ring", 779.4),
        (100, 2, "tree", 979.8), (100, 4, "tree", 1593.1), (100, 8, "tree", 2180.9), (100, 16, "tree", 2831.1),
        (25, 2, "ring", 1928.3), (25, 4, "ring", 2476.1), (25, 8, "ring", 2715.0), (25, 16, "ring", 2771.6),
        (25, 4, "direct", 2852.2), (25, 8, "direct", 3389.0), (25, 16, "direct", 3565.4),
        (1000, 2, "ring", 896.6), (1000, 4, "direct", 1017.0), (1000, 4, "ring", 1076.3), (1000, 8, "direct", 1205.0),
    ],
)  # fmt: skip
def test_measured_links_within_ten_percent(mbit, nodes, topology, ms):
    alpha_s, byte_s, sleep_s = LINKS[mbit]
    network = Network(alpha_s, byte_s, add_s=2.2e-11)
    parameters = 6_998_552 if mbit == 1000 else 700_000
    said = predict(AllReduce(topology=topology), Job(parameters, sleep_s, nodes, network, update_s=0))
    assert said.step_s * 1e3 == pytest.approx(ms, rel=0.10)


# docs/performance.md, tests/benchmarks/distributed_overhead.py: 60 ms, ranks of one host, through shared memory
@pytest.mark.parametrize(
    "nodes, parameters, doubled, ms",
    [
        (1, 669_706, False, 64.87), (2, 669_706, False, 62.64), (4, 669_706, False, 63.72),
        (2, 5.8e6, False, 71.90), (4, 5.8e6, False, 73.95), (2, 5.8e6, True, 62.93), (4, 5.8e6, True, 62.31),
    ],
)  # fmt: skip
def test_measured_steps_on_one_host_within_ten_percent(nodes, parameters, doubled, ms):
    memory = Network(4e-6, 6.5e-11, message_s=0, add_s=0, incast=0)  # shm, in place: 4 us, 2.62 ms for 40 MB
    update_s = 0 if doubled else 3e-9  # beside a sleep the update costs nothing
    job = Job(parameters, 0.06, nodes, memory, other_s=0.6e-3, update_s=update_s)
    said = predict(AllReduce(double_buffering=doubled), job)
    assert said.step_s * 1e3 == pytest.approx(ms, rel=0.10)


def test_more_nodes_more_time_and_faster_links_less():
    for name, make in STRATEGIES.items():
        steps = [
            predict(make(n), Job(7e6, 0.4, n, Network.ethernet(10), Stragglers(0.05), update_s=0, steps=60)).step_s
            for n in (4, 32, 256)
        ]
        assert steps == sorted(steps), name
        links = [predict(make(64), Job(7e6, 0.4, 64, Network.ethernet(g), steps=20)).step_s for g in (100, 25, 10, 1)]
        assert links == sorted(links), name


def test_stragglers_have_their_mean_and_their_seed():
    drawn = Stragglers(0.2, 0.1, 3).draw(400, 100)
    assert drawn.mean() == pytest.approx(1 + 0.1 * 2, rel=0.02)
    assert np.array_equal(drawn, Stragglers(0.2, 0.1, 3).draw(400, 100))
    assert not np.array_equal(drawn, Stragglers(0.2, 0.1, 3, seed=1).draw(400, 100))


def test_failures_cost_what_a_simulation_of_them_costs():
    rng, failures = np.random.default_rng(0), Failures(mtbf_s=4000, restart_s=20, checkpoint_every_s=30, checkpoint_s=1)
    total, rate = 0.0, 20 / 4000
    for _ in range(4000):  # intervals of 30 s of work and a checkpoint, begun again until one goes through
        need = 31.0
        while (death := rng.exponential(1 / rate)) < need:
            total += death
            while (again := rng.exponential(1 / rate)) < 20:  # it may die while it starts
                total += again
            total += 20
        total += need
    assert failures.stretch(20) == pytest.approx(total / (4000 * 30), rel=0.02)
    assert Failures().stretch(1000) == 1 and Failures(checkpoint_s=0.5).stretch(1000) == pytest.approx(1 + 0.5 / 30)
    assert failures.stretch(20, keeps_work=True) == pytest.approx(31 / 30 * (1 + rate * 20))
    assert math.isinf(Failures(mtbf_s=1.0).stretch(1000))


def test_tables_by_rows_travel_in_part():
    job = Job(32e6, 0.01, 2, PLAIN, table=31e6, touched=1e6)
    assert predict(AllReduce(), job).sent_bytes == 4 * 3e6
    assert predict(AllReduce(wire_dtype="bfloat16"), job).sent_bytes == 2 * 32e6
    assert Job(32e6, 0.01, 1000, table=31e6, touched=1e6).travelling == 32e6


def test_what_has_no_model_is_refused():
    job = Job(1e6, 0.1, 4)
    with pytest.raises(TypeError, match="predict knows no costs of LBFGS.*AllReduce, LocalSGD"):
        predict(LBFGS(), job)
    with pytest.raises(ValueError, match="store='http'"):
        predict(ParameterServer(1, store="http"), job)
    with pytest.raises(ValueError, match="Job: nodes needs a number above 0, got 0"):
        Job(1e6, 0.1, 0)


def test_command_prints_a_table(monkeypatch, capsys):
    line = "scaling --parameters 7e6 --compute-ms 500 --nodes 2 4 --strategy local"
    monkeypatch.setattr("sys.argv", line.split())
    main()
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 and rows[0].startswith("| `LocalSGD(10") and "| 4 |" in rows[1]
