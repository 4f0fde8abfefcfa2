"""Code with exchanges in its middle: a graph is cut at its sums and stacks, all of one level are exchanged together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..ir import Graph, Node
from .instructions import Compute, Drop, Gather, Instruction, Sum
from .lowering import LEAVES, Lowering
from .places import CHEAP

Finish = Callable[[Mapping[Node, Any], Mapping[str, Any]], Mapping[str, Any]]
Types = tuple[tuple[int, ...], str]


def leveled(
    lowering: Lowering,
    cuts: Mapping[Node, str],
    given: Sequence[Node],
    wanted: Sequence[Node],
    finish: Finish | None = None,
    extra: Sequence[tuple[str, Types]] = (),
    needs: Sequence[Node] = (),
) -> list[Instruction]:
    """As `Lowering.compute`, in as many pieces of code as there are exchanges one after another, and one more.

    Args:
        cuts: the nodes whose values are exchanged, each with the axis of its ranks; "part_stack" is gathered, others are summed.
    """
    order = lowering.between([*wanted, *needs], set(given))
    cuts = {n: axis for n, axis in cuts.items() if n in set(order)}
    there = set(given)
    level: dict[Node, int] = dict.fromkeys(given, 0)
    for n in order:
        level[n] = max((level[i] + (i in cuts) for i in n.inputs), default=0)
    last = max((level[n] + 1 for n in cuts), default=0)
    reads: list[dict[Node, None]] = []
    for k in range(last + 1):
        ends = [*wanted, *needs] if k == last else [n.inputs[0] for n in cuts if level[n] == k]
        reads.append(_read(ends, level, cuts, there, k))
    carried: list[dict[Node, None]] = [{} for _ in range(last + 1)]  # computed in a level, read in a later one
    for k in range(last, -1, -1):  # last levels first: what they read, earlier ones must keep
        reads[k] |= _read([*carried[k]], level, cuts, there, k)
        for n in reads[k]:
            if n not in cuts and n not in there:
                carried[level[n]][n] = None
    made: list[Instruction] = []
    for k in range(last):
        summed = [n for n in cuts if level[n] == k]
        kept = sorted((n for n in carried[k] if n not in reads[k]), key=lowering.index.__getitem__)
        made.append(_to_exchange(lowering, list(reads[k]), kept, summed))
        made += _exchanges(lowering, cuts, summed)
        made += _dropped(lowering, reads, k, there)
    shown = [n for n in wanted if n not in reads[last]]  # the others are in the environment already
    made.append(lowering.compute(list(reads[last]), shown, finish, extra, needs))
    made += _dropped(lowering, reads, last, there | set(wanted))
    return made


def sums_in(graph: Graph) -> dict[Node, str]:
    """The sums over all rows of a batch in a graph, as `leveled` takes them."""
    return {n: "data" for n in graph.nodes if n.op.name == "all_reduce"}


def _to_exchange(lowering: Lowering, given: list[Node], kept: list[Node], summed: list[Node]) -> Compute:
    def finish(values: Mapping[Node, Any], _: Mapping[str, Any]) -> dict[str, Any]:
        return {lowering.names(n)[0]: values[n.inputs[0]] for n in summed}

    return lowering.compute(given, kept, finish, (), [n.inputs[0] for n in summed])


def _exchanges(lowering: Lowering, cuts: Mapping[Node, str], summed: Sequence[Node]) -> list[Instruction]:
    made: list[Instruction] = []
    for axis in ("data", "model"):
        vectors = [n for n in summed if cuts[n] == axis and n.op.name != "part_stack"]
        if vectors:
            names = tuple(lowering.names(n)[0] for n in vectors)
            made.append(Sum(axis, names, tuple(lowering.types(n)[0] for n in vectors)))
    stacked = [n for n in summed if n.op.name == "part_stack"]
    for dtype in dict.fromkeys(n.dtype for n in stacked):
        chosen = [n for n in stacked if n.dtype == dtype]
        names = tuple(lowering.names(n)[0] for n in chosen)
        made.append(Gather("model", names, tuple(lowering.types(n)[0] for n in chosen)))
    return made


def _read(
    ends: Sequence[Node], level: Mapping[Node, int], cuts: Mapping[Node, str], there: set[Node], k: int
) -> dict[Node, None]:
    """What level `k` reads of earlier ones, and of what is given, to compute these."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    stack = list(ends)
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        if n in there:
            found[n] = None
        elif n.op.name in LEAVES or not n.inputs:
            continue
        elif level[n] < k and (n in cuts or n.op.name not in CHEAP):
            found[n] = None
        else:
            stack.extend(n.inputs)
    return found


def _dropped(lowering: Lowering, reads: Sequence[Mapping[Node, None]], k: int, kept: set[Node]) -> list[Instruction]:
    """What no later level reads, and nobody else."""
    later = {n for level in reads[k + 1 :] for n in level}
    gone = tuple(sorted(name for n in reads[k] if n not in later and n not in kept for name in lowering.names(n)))
    return [Drop(gone)] if gone else []
