"""A step of each strategy, in seconds: the formulas are those of the strategies' docstrings."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..averaging import BEST, GRADIENTS
from ..collectives.compression import Compression, Threshold, TopK, TwoBit, compression_of
from ..collectives.routed import SURE
from ..strategies import (
    AllReduce,
    Downpour,
    DriverReduce,
    LocalSGD,
    ParameterAveraging,
    ParameterServer,
    ShuffleAllReduce,
    StaleSynchronous,
)
from .costs import (
    Job,
    Network,
    Prediction,
    all_reduce_s,
    barrier_steps,
    bucketed_steps,
    clock_steps,
    overlapped_steps,
    round_steps,
)

HALVES_S = 0.66e-9  # seconds a parameter: to bfloat16 and back, for gradients and for weights
ENCODE_S, DECODE_S = 1.5e-9, 2e-8  # seconds a parameter of the vector, and a parameter sent


@functools.singledispatch
def predict(strategy: Any, job: Job) -> Prediction:
    """A mean step of `job` by `strategy`.

    Args:
        strategy: as given to `fit`: `AllReduce(topology="ring")`, `LocalSGD(10)`, ... Its `workers` and `shards` do not
            count, `job.nodes` does; of a `ParameterServer` these are the workers, its servers come on top.

    Raises:
        TypeError: of this strategy (`LBFGS`) there is no model.
        ValueError: nor of these settings.
    """
    raise TypeError(f"predict knows no costs of {strategy!r}: give one of AllReduce, LocalSGD, ParameterAveraging, "
                    "Downpour, StaleSynchronous, ParameterServer, DriverReduce, ShuffleAllReduce")  # fmt: skip


def _prediction(
    job: Job,
    total_s: Callable[[np.ndarray], float],
    update_s: float,
    sent_bytes: float,
    scheduling_s: float = 0.0,
    keeps_work: bool = False,
) -> Prediction:
    """`total_s(times)`: seconds of all steps without scheduling; once more with all times alike, to tell waiting apart."""
    times = job.times()
    mean = float(times.mean())
    busy = total_s(times + job.other_s) / len(times)
    even = total_s(np.full_like(times, mean) + job.other_s) / len(times)
    step = busy + scheduling_s
    stretch = job.failures.stretch(job.nodes, keeps_work)
    return Prediction(
        step_s=step * stretch,
        compute_s=mean,
        wait_s=busy - even,
        sync_s=even - mean - job.other_s - update_s,
        update_s=update_s,
        scheduling_s=scheduling_s,
        faults_s=step * (stretch - 1),
        alone_s=mean + job.other_s + job.update_s * (job.dense + min(job.table, job.touched)),
        sent_bytes=sent_bytes,
    )


def _words(compression: Compression, parameters: float) -> float:
    """Parameters (of 4 bytes) that a compressed gradient is as long as."""
    if isinstance(compression, Threshold):
        return compression.density * parameters
    if isinstance(compression, TopK):
        return 2 * compression.fraction * parameters
    if isinstance(compression, TwoBit):
        return parameters / 16
    raise ValueError(f"predict knows no size of {compression!r}")


def exchange_s(network: Network, nodes: int, size: float, topology: str, wire_dtype: str = "float32") -> float:
    """`all_reduce_s` with "auto" as `collectives.routed` chooses, and the conversions of bfloat16."""
    half = wire_dtype == "bfloat16"
    one = functools.partial(all_reduce_s, network, nodes, size, wire=0.5 if half else 1.0)
    seconds = one(topology="direct" if topology == "auto" else topology)
    if topology == "auto":
        others = min(one(topology="ring"), one(topology="tree"))
        seconds = others if others <= SURE * seconds else seconds
    return seconds + (HALVES_S * size / 4 if half and nodes > 1 else 0.0)


@predict.register
def _(strategy: AllReduce, job: Job) -> Prediction:
    n, net = job.nodes, job.network
    compression = compression_of(strategy.compression)
    if compression is not None and n > 1:
        words = _words(compression, job.parameters)
        sent = (n - 1) * 4 * words
        gathered = (
            2 * net.alpha_s + (n - 1) * 2 * net.message_s + sent * net.byte_s * (1 + net.incast * math.log2(n - 1))
        )
        exchange = gathered + ENCODE_S * job.parameters + n * DECODE_S * words
        update = job.update_s * job.parameters
    else:
        whole = (
            strategy.double_buffering or strategy.buckets > 1 or strategy.wire_dtype != "float32"
        )  # so do tables then
        size = job.vector_bytes if whole else 4 * job.travelling
        exchange = exchange_s(net, n, size, strategy.topology, strategy.wire_dtype)
        update = job.update_s * (job.parameters / n if whole else job.dense / n + job.rows)  # all ranks update all rows
        sent = 2 * (n - 1) / n * size * (0.5 if strategy.wire_dtype == "bfloat16" else 1)
    if strategy.double_buffering:  # the exchange is hidden; the update takes the processor from the gradient
        return _prediction(job, lambda times: overlapped_steps(times + update, exchange), update, sent)
    if strategy.buckets > 1:
        shares = job.buckets or (1 / strategy.buckets,) * strategy.buckets
        ready = [job.forward + (1 - job.forward) * sum(shares[: k + 1]) for k in range(len(shares))]
        exchanges = [exchange_s(net, n, b * size, strategy.topology, strategy.wire_dtype) for b in shares]
        updates = [b * update for b in shares]
        return _prediction(job, lambda times: bucketed_steps(times, ready, exchanges, updates), update, sent)
    return _prediction(job, lambda times: barrier_steps(times, exchange + update), update, sent)


@predict.register
def _(strategy: LocalSGD, job: Job) -> Prediction:
    n, update = job.nodes, job.update_s * job.parameters
    exchange = exchange_s(job.network, n, job.vector_bytes, strategy.topology, strategy.wire_dtype)
    sent = 2 * (n - 1) / n * job.vector_bytes / strategy.tau
    return _prediction(job, lambda times: round_steps(times, strategy.tau, update, exchange), update, sent)


@predict.register
def _(strategy: ParameterAveraging, job: Job) -> Prediction:
    """ "best" counts the replicas that travel, not their evaluation."""
    n, combine = job.nodes, strategy.combine
    vectors = 1 + (job.slots if strategy.average_optimizer_state and combine != GRADIENTS else 0)
    vectors += n if combine == BEST else 0
    update = job.update_s * job.parameters / (strategy.frequency if combine == GRADIENTS else 1)
    exchange = vectors * exchange_s(job.network, n, job.vector_bytes, strategy.topology, strategy.wire_dtype)
    sent = 2 * (n - 1) / n * job.vector_bytes * vectors / strategy.frequency
    return _prediction(job, lambda times: round_steps(times, strategy.frequency, update, exchange), update, sent)


def _slices_s(job: Job) -> tuple[float, float]:
    """Seconds of a push to all other ranks' slices, and of a fetch from them."""
    n, net = job.nodes, job.network
    if n == 1:
        return 0.0, 0.0
    bytes_ = (n - 1) / n * job.vector_bytes
    one = net.alpha_s + (n - 1) * net.message_s + bytes_ * net.byte_s * (1 + net.incast * math.log2(n - 1))
    return one + bytes_ * net.add_s, one


@predict.register
def _(strategy: StaleSynchronous, job: Job) -> Prediction:
    push, fetch = _slices_s(job)
    update = job.update_s * job.parameters / job.nodes
    sent = 2 * (job.nodes - 1) / job.nodes * job.vector_bytes
    if strategy.staleness:  # a rank makes its slice's updates between its own gradients
        return _prediction(job, lambda t: clock_steps(t, strategy.staleness, push + update, fetch), update, sent)
    return _prediction(job, lambda t: clock_steps(t, 0, push, fetch, update), update, sent)


@predict.register
def _(strategy: Downpour, job: Job) -> Prediction:
    """A fetch is waited for, a push is not; but a link carries both, and every push is an update at each server."""
    (push, fetch), n = _slices_s(job), job.nodes
    pushes, fetches = 1 / strategy.n_push, 1 / strategy.n_fetch
    update = job.update_s * job.parameters * pushes

    def total_s(times: np.ndarray) -> float:
        slowest = float(times.sum(axis=0).max()) + len(times) * fetch * fetches
        return max(slowest, len(times) * (push * pushes + fetch * fetches)) + len(times) * update

    return _prediction(job, total_s, update, (n - 1) / n * job.vector_bytes * (pushes + fetches))


@predict.register
def _(strategy: ParameterServer, job: Job) -> Prediction:
    w, u, net = job.nodes, strategy.servers, job.network
    if strategy.store == "broadcast":
        return predict(DriverReduce(), job)
    if strategy.store != "coprocessor":
        raise ValueError(f"predict knows no costs of ParameterServer(store={strategy.store!r}), only of 'coprocessor'")
    busiest = job.vector_bytes * max(1.0, w / u)
    one = net.alpha_s + max(w, u) * net.message_s + busiest * net.byte_s * (1 + net.incast * math.log2(w))
    push, update = one + job.vector_bytes * w / u * net.add_s, job.update_s * job.parameters / u
    shown = update if strategy.staleness == 0 else 0.0  # else servers make it while workers compute
    return _prediction(
        job,
        lambda times: clock_steps(times, strategy.staleness, push, one, update),
        shown,
        job.vector_bytes,
        keeps_work=True,
    )


@predict.register
def _(strategy: DriverReduce, job: Job) -> Prediction:
    n, net, spark = job.nodes, job.network, job.spark
    arriving = math.sqrt(n)
    exchange = job.vector_bytes * (n * net.byte_s + 2 * arriving * (net.byte_s + net.add_s))
    exchange += job.vector_bytes * spark.byte_s * (2 + 2 * arriving)
    update = job.update_s * job.parameters
    return _prediction(
        job,
        lambda times: barrier_steps(times, exchange + update),
        update,
        job.vector_bytes,
        scheduling_s=spark.job_s + n * spark.task_s,
        keeps_work=True,
    )


@predict.register
def _(strategy: ShuffleAllReduce, job: Job) -> Prediction:
    n, net, spark = job.nodes, job.network, job.spark
    sent = 2 * (n - 1) / n * job.vector_bytes
    exchange = sent * (net.byte_s + 2 * spark.byte_s) + job.vector_bytes * net.add_s + 2 * net.alpha_s
    update = job.update_s * job.parameters / n
    return _prediction(
        job,
        lambda times: barrier_steps(times, exchange + update),
        update,
        8 * job.parameters,
        scheduling_s=spark.job_s + 3 * n * spark.task_s + 2 * n * n * spark.block_s,
        keeps_work=True,
    )
