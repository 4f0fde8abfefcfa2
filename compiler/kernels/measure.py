"""Times the candidates for one op as small executables, in turns, on random arrays."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from .lowerings import example

ROUNDS = 5
SHORTEST_S = 0.5e-3  # a round repeats a call until it took so long
ENOUGH_S = 0.1  # for the rounds of one op
NEVER_S = 1e9
HOPELESS = 2.0  # a candidate that is so much slower than the best in the first round is not tried again
HOPELESS_AT_ONCE = 5.0  # nor one that is so much slower in its very first call, if that took as long as this:
LONG_S = 10e-3


def timed(
    op: str,
    candidates: Mapping[str, tuple[Callable[..., Any], Mapping[str, str]]],
    types: Sequence[Any],
    attrs: Mapping[str, Any],
    rounds: int = ROUNDS,
) -> dict[str, float]:
    """{name: seconds of the shortest call}; `NEVER_S` for a candidate that refuses to run.

    Args:
        op: its name.
        candidates: {name: (lowering, XLA options)}.
        types, attrs: what they compute, with known sizes.
        rounds: how often each is timed, in turns.
    """
    if attrs.get("digest") is not None:  # under which a kernel keeps packed weights: never the real ones' name
        attrs = {**attrs, "digest": secrets.token_hex(len(attrs["digest"]) // 2)}
    with jax.ensure_compile_time_eval():  # this may run while a whole step is traced
        arrays = [jax.device_put(a) for a in example(op, types, attrs)]
    calls: dict[str, Callable[[], Any]] = {}
    dropped: dict[str, float] = {}
    least_s = NEVER_S
    for name, (run, options) in reversed(list(candidates.items())):  # XLA's own last: it may take twenty times the rest
        function = jax.jit(functools.partial(run, **attrs), compiler_options=dict(options) or None)
        call = functools.partial(function.lower(*arrays).compile(), *arrays)
        begin = time.perf_counter()
        try:
            jax.block_until_ready(call())
        except jax.errors.JaxRuntimeError:  # refused at run time: never to be taken
            dropped[name] = NEVER_S
            continue
        first_s = time.perf_counter() - begin
        least_s = min(least_s, first_s)
        if first_s > max(LONG_S, HOPELESS_AT_ONCE * least_s):
            dropped[name] = first_s
        else:
            calls[name] = call
    return shortest(calls, rounds) | dropped


def shortest(
    calls: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS, enough_s: float = ENOUGH_S
) -> dict[str, float]:
    """{name: seconds of the shortest call}; the calls take turns, so that a busy machine slows all of them."""
    best: dict[str, float] = {}
    repeats: dict[str, int] = {}
    begin = time.perf_counter()
    alive = list(calls)
    for i in range(rounds):
        for name in alive:
            count = repeats.get(name, 1)
            start = time.perf_counter()
            for _ in range(count):
                jax.block_until_ready(calls[name]())
            spent = (time.perf_counter() - start) / count
            best[name] = min(best.get(name, spent), spent)
            repeats[name] = max(1, min(50, int(SHORTEST_S / max(best[name], 1e-9))))
        if i == 0 and best:
            fastest = min(best.values())
            alive = [name for name in alive if best[name] <= HOPELESS * fastest + 20e-6]
        if time.perf_counter() - begin > enough_s and i >= 2:
            break
    return best
