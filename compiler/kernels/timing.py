"""Times of the candidates for the nodes of one executable: read from this machine's file, or measured within a budget."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import threading
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..costs import bytes_moved, flops
from ..ir import Node
from ..options import DEFAULT, SENSITIVE, VARIANTS
from . import machine, settings
from .decisions import Decision, Decisions
from .lowerings import Lowering
from .measure import timed

WORTH_S = 20e-6  # nodes estimated to be quicker are left to the rule
PROCESS_BUDGETS = 5  # so many budgets of one executable may a process spend
_log = logging.getLogger("kerasoft.kernels")
_lock = threading.Lock()  # one measurement at a time
_spent_s = 0.0


@dataclasses.dataclass(frozen=True)
class Case:
    """One choice: a node with known sizes.

    Attributes:
        node: the node. types, attrs: of its inputs and itself, with numbers for unknown sizes.
        found: the further lowerings that can compute it.
        sizes: a number for each unknown size.
    """

    node: Node
    types: tuple[Any, ...]
    attrs: Mapping[str, Any]
    found: Sequence[Lowering]
    sizes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def key(self) -> str:
        """The choice as text, the same for the same op, types and attributes."""
        types = ", ".join(f"{t.dtype}{list(t.shape)}" for t in self.types)
        attrs = ", ".join(f"{name}={value!r}" for name, value in sorted(self.attrs.items()) if name != "digest")
        return f"{self.node.op.name}({types}){{{attrs}}}"

    @property
    def candidates(self) -> dict[str, tuple[Any, Mapping[str, str]]]:
        """{name: (lowering, XLA options)}, XLA's own first."""
        own = VARIANTS if self.node.op.name in SENSITIVE else {DEFAULT: VARIANTS[DEFAULT]}
        all_ = {name: (self.node.op.lower, options) for name, options in own.items()}
        return all_ | {one.name: (one.run, VARIANTS[DEFAULT]) for one in self.found}

    @property
    def estimate_s(self) -> float:
        """Roughly what it takes on two cores, to tell what matters."""
        return flops(self.node, self.sizes) / 300e9 + bytes_moved(self.node, self.sizes) / 15e9


def known_times(cases: Iterable[Case], measure: bool) -> dict[str, dict[str, float]]:
    """{key: {candidate: seconds}} for those of `cases` that were measured, now or earlier.

    Args:
        measure: whether missing ones may be measured, most expensive first, for `settings.budget_s` seconds. What is
            left then is left to the rules for good (until the budget is raised), so that the next run chooses alike.
    """
    budget = settings.budget_s()
    if budget == 0:
        return {}
    with _lock:
        decisions = _decisions(tuple(sorted(machine.description().items())))
        todo: dict[str, Case] = {}
        times: dict[str, dict[str, float]] = {}
        for case in cases:
            known = decisions.known.get(case.key)
            if known is not None and set(known.times) >= set(case.candidates):
                times[case.key] = dict(known.times)
            elif known is None or known.times or known.budget_s < budget:
                todo.setdefault(case.key, case)
        if measure and todo:
            times |= _measured(list(todo.values()), decisions, budget)
        return times


def decided(keys: Iterable[str]) -> str:
    """SHA-256 of what is known of these choices (`Case.key`): the same, the same kernels."""
    found: dict[str, Any] = {}
    if settings.budget_s():
        with _lock:
            known = _decisions(tuple(sorted(machine.description().items()))).known
            found = {key: known[key].to_json() if key in known else None for key in keys}
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()


@functools.cache
def _decisions(description: tuple) -> Decisions:
    return Decisions(dict(description))


def forget() -> None:
    """Reads the file anew at the next choice."""
    _decisions.cache_clear()


def _measured(cases: list[Case], decisions: Decisions, budget: float) -> dict[str, dict[str, float]]:
    global _spent_s
    ranked = sorted(((case.estimate_s, case.key, case) for case in cases), key=lambda r: (-r[0], r[1]))
    ranked = [r for r in ranked if r[0] >= WORTH_S and len(r[2].candidates) > 1]
    if not ranked:
        return {}
    found: dict[str, dict[str, float]] = {}
    begin = time.perf_counter()
    left_s = min(budget, PROCESS_BUDGETS * budget - _spent_s)
    _log.info("measuring kernels for %d ops, at most %.1f s", len(ranked), left_s)
    for _, key, case in ranked:
        if time.perf_counter() - begin >= left_s:
            decisions.add(key, Decision(budget_s=budget))
            continue
        try:
            found[key] = timed(case.node.op.name, case.candidates, case.types, case.attrs)
        except Exception as error:  # a candidate that does not compile is a mistake of ours, never the user's loss
            warnings.warn(f"kernels for {key} could not be measured: {error!r}", stacklevel=2)
            continue
        decisions.add(key, Decision(found[key]))
    _spent_s += time.perf_counter() - begin
    decisions.save()
    return found
