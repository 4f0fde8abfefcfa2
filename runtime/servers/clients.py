"""What a worker does in an epoch, as generators of effects: the published algorithms, line by line."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from .effects import Compute, Fetch, Pause, Send
from .machine import NEVER

Client = Generator[Any, Any, int]
"""Yields effects, is sent their results; returns the number of the epoch's steps behind it."""


def descend(parameters: Any, gradient: Any, rate: float) -> Any:
    """parameters − rate × gradient"""
    return parameters - rate * gradient


def downpour(
    first: int,
    steps: int,
    n_fetch: int,
    n_push: int,
    stop_at: int = NEVER,
    local_step: Callable[[Any, Any, float], Any] | None = descend,
) -> Client:
    """DistBelief's Downpour SGD client.

        step ← 0; accrued ← 0
        while true:
            if step mod n_fetch = 0: parameters ← fetched from the servers
            data ← next minibatch; gradient ← gradient(parameters, data)
            accrued ← accrued + gradient
            parameters ← parameters − α gradient
            if step mod n_push = 0: push accrued; accrued ← 0
            step ← step + 1

    At a pause and at the epoch's end what is accrued is pushed, so that no gradient is lost.

    Args:
        first: the epoch's step to begin with. steps: of the epoch.
        stop_at: step before which to pause; each pause says where the next one is.
        local_step: ``local_step(parameters, gradient, rate)``; None leaves it out.

    Source: J. Dean et al., Large Scale Distributed Deep Networks (2012), Algorithm 1.1 of the supplement.
    """
    accrued, number, mark, fetched = None, 0, 0, None
    step = first
    while step < steps:
        if step >= stop_at:
            if accrued is not None:
                yield Send(step - 1, accrued, number, mark)
                accrued, number = None, 0
            go = yield Pause(step)
            stop_at, fetched = go.next_stop, None
            if go.stop:
                break
        if step % n_fetch == 0 or fetched is None:
            fetched = yield Fetch()
            if fetched.stop:
                break
            parameters = fetched.parameters
        mark = fetched.mark if accrued is None else mark
        gradient = yield Compute(step, parameters)
        accrued = gradient if accrued is None else accrued + gradient
        number += 1
        if local_step is not None and (step + 1) % n_fetch and step + 1 != stop_at:  # else it would be overwritten
            parameters = local_step(parameters, gradient, fetched.rate)
        if step % n_push == 0:
            yield Send(step, accrued, number, mark)
            accrued, number = None, 0
        step += 1
    if accrued is not None:
        yield Send(step - 1, accrued, number, mark)
    yield Pause(step, end=True)
    return step


def stale_synchronous(first: int, steps: int, staleness: int, stop_at: int = NEVER) -> Client:
    """Petuum's stale synchronous parallel client.

        for clock c:
            parameters ← with all updates of clocks before c − s (waits for them), perhaps newer ones
            gradient ← gradient(parameters, data of c)
            push the gradient; clock()

    Source: Q. Ho et al., More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server (2013).
    """
    step = first
    while step < steps:
        if step >= stop_at:
            go = yield Pause(step)
            stop_at = go.next_stop
            if go.stop:
                break
        fetched = yield Fetch(at_least=step - staleness)
        if fetched.stop:
            break
        gradient = yield Compute(step, fetched.parameters)
        yield Send(step, gradient, 1, fetched.mark)
        step += 1
    yield Pause(step, end=True)
    return step
