"""Times every kernel that this machine has for typical shapes, and says which one the compiler would take."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ..compiler.costs import bytes_moved, flops, total_bytes, total_flops
from ..compiler.ir import Graph
from ..compiler.kernels import machine
from ..compiler.kernels.choice import Chooser, case_of
from ..compiler.kernels.decisions import Decision, Decisions
from ..compiler.kernels.measure import timed
from ..compiler.kernels.peak import Peak, peak
from ..compiler.lower import function
from .workloads import all_rows, inputs_of


@dataclasses.dataclass(frozen=True)
class Row:
    """One op on one shape.

    Attributes:
        group, shape: as in `workloads`. op: its name, or "graph" for several ops timed as one.
        flops, bytes: counted on the graph.
        times: {kernel: seconds}. rule: the kernel that is taken without measurements.
        key: under which the compiler looks for the times; "" if it has no choice.
    """

    group: str
    shape: str
    op: str
    flops: int
    bytes: int
    times: Mapping[str, float]
    rule: str
    key: str = ""

    @property
    def best(self) -> str:
        return min(self.times, key=lambda name: self.times[name])

    def text(self, limit: Peak) -> str:
        shortest_s = self.times[self.best]
        others = "  ".join(
            f"{name} {1e3 * t:.3g}"
            for name, t in sorted(self.times.items(), key=lambda item: item[1])
            if name != self.best
        )
        rate = f"{self.flops / shortest_s / 1e9:6.0f} GFLOP/s  {self.bytes / shortest_s / 1e9:5.0f} GB/s"
        share = f"{100 * limit.share(self.flops, self.bytes, shortest_s):4.0f} %"
        rule = "" if self.rule == self.best else f"  (without measuring: {self.rule})"
        what = f"{self.op:<18}" if self.op != "graph" else f"{'':<18}"
        return f"  {what} {1e3 * shortest_s:8.3f} ms  {rate}  {share}  {self.best:<10} {others}{rule}"


def measured(only: str = "") -> Iterator[Row]:
    """The rows, each when it has been measured."""
    for group, shape, graph in all_rows(only):
        rules = {n: picked.name for n, picked in Chooser(graph, {}, measure=False).picked.items()}
        cases = [case for n in graph.nodes if (case := case_of(n, {}, all_=True)) is not None]
        for case in cases:
            n = case.node
            times = timed(n.op.name, case.candidates, case.types, case.attrs)
            yield Row(group, shape, n.op.name, flops(n, {}), bytes_moved(n, {}), times, rules.get(n, "xla"), case.key)
        if not cases:
            yield _whole(group, shape, graph)


def _whole(group: str, shape: str, graph: Graph) -> Row:
    inputs = inputs_of(graph)
    times = timed("graph", {"xla": (function(graph, inputs), {})}, [n.type for n in inputs], {})
    name = graph.nodes[-1].op.name if len(graph.outputs) == 1 else "graph"
    return Row(group, shape, name, total_flops(graph, {}), total_bytes(graph, {}), times, "xla")


def run(only: str = "", save: bool = False, as_json: bool = False, out: Any = None) -> int:
    """Prints the rows; returns the exit status.

    Args:
        only: groups whose name holds this. save: keep the times for the compiler. as_json: one JSON object, in the end.
        out: where to, by default standard output.
    """
    out = sys.stdout if out is None else out
    begin = time.perf_counter()
    limit = peak(again=True)
    about = machine.description()
    show = (lambda *_: None) if as_json else (lambda *text: print(*text, file=out, flush=True))
    show(", ".join(f"{name} {value}" for name, value in about.items() if value != ""))
    show(f"peak: {limit.flops_s / 1e9:.0f} GFLOP/s (float32), {limit.bytes_s / 1e9:.0f} GB/s, by {limit.how}")
    show("fastest kernel: ms, arithmetic, unfused memory traffic, share of the peak; then the others' ms")
    rows: list[Row] = []
    for row in measured(only):
        if not rows or rows[-1].group != row.group:
            show(f"\n{row.group}")
        if not rows or (rows[-1].group, rows[-1].shape) != (row.group, row.shape):
            show(f" {row.shape}")
        show(row.text(limit))
        rows.append(row)
    if not rows:
        print(f"there is no group with {only!r} in its name", file=sys.stderr)
        return 1
    if as_json:
        peaks = {"flops_s": limit.flops_s, "bytes_s": limit.bytes_s}
        found = [{**dataclasses.asdict(row), "best": row.best} for row in rows]
        print(json.dumps({"machine": about, "peak": peaks, "rows": found}), file=out)
    show(f"\n{len(rows)} rows in {time.perf_counter() - begin:.0f} s")
    if save:
        decisions = Decisions(about)
        for row in rows:
            if row.key:
                decisions.add(row.key, Decision(dict(row.times)))
        decisions.save()
        show(f"kept for the compiler in {decisions.path}")
    return 0
