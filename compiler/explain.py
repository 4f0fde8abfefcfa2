"""What the compiler made of a model: graphs before and after the passes, costs, memory, choices; as text and picture."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax

from . import half_precision
from .costs import bound_type, bytes_moved, flops, readable, size_bytes, total_bytes, total_flops
from .errors import ProgramError
from .ir import Dim, Graph, Node
from .ir.text import print_graph
from .kernels.choice import Chooser, Picked
from .kernels.lowerings import random_arrays
from .kernels.peak import Peak, peak
from .lower import function, split_stages
from .packing import unknown_sizes
from .passes import passes_for
from .program import StepSource
from .regions import HEAD, Region, regions_of, scoped
from .rows import find_tables

SHOWN = 60  # kernels in the text, at most
KINDS = ("train", "test", "predict", "update")


@dataclasses.dataclass(frozen=True)
class Part:
    """One graph of a model, explained.

    Attributes:
        kind: "train", "test", "predict" or "update". before, after: the graph before and after the passes.
        sizes: the numbers taken for unknown sizes.
        passes: nodes that each pass took away (negative: added), in order, for passes that changed something.
        flops, bytes: counted on the graph; bytes as if every node ran alone.
        memory: bytes of the executable's arguments, outputs and temporaries; peak is their sum. Empty if not compiled.
        xla: XLA's own count of flops and bytes accessed, after fusion. Empty if not compiled.
        stages: parts that the graph is cut into by sums over replicas. options: XLA options that were chosen.
        picked: the kernel of each node that had a choice, who chose it, and the times measured.
        regions: the kernels as they ran, slowest first; empty if not measured. seconds: of a whole call, 0 if not measured.
        limit: what the machine can do; None if not measured.
        half_precision: whether bfloat16 pays here, where the graph uses it and was measured.
        tables: for each weight that a train graph looks up, whether its rows are updated by themselves, or why not.
    """

    kind: str
    before: Graph
    after: Graph
    sizes: Mapping[str, Dim]
    passes: Mapping[str, int]
    flops: int
    bytes: int
    memory: Mapping[str, int]
    xla: Mapping[str, float]
    stages: int
    options: Mapping[str, Any]
    picked: Mapping[Node, Picked]
    regions: tuple[Region, ...] = ()
    seconds: float = 0.0
    limit: Peak | None = None
    half_precision: str = ""
    tables: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def parameter_bytes(self) -> int:
        return sum(size_bytes(n.type) for n in self.after.params)

    @property
    def text(self) -> str:
        sizes = ", ".join(f"{k} = {v}" for k, v in self.sizes.items())
        changes = ", ".join(f"{name} {-count:+d}" for name, count in self.passes.items()) or "changed nothing"
        lines = [
            f"=== {self.kind} ({sizes})" if sizes else f"=== {self.kind}",
            f"nodes        {len(self.before.nodes)} -> {len(self.after.nodes)}  ({changes})",
            f"stages       {self.stages}",
            f"flops        {readable(self.flops)}" + (f"  (XLA: {readable(self.xla['flops'])})" if self.xla else ""),
            f"bytes moved  {readable(self.bytes, 'B')} unfused"
            + (f"  (XLA: {readable(self.xla['bytes'], 'B')})" if self.xla else ""),
            f"parameters   {readable(self.parameter_bytes, 'B')}",
        ]
        if self.memory:
            detail = ", ".join(f"{name} {readable(size, 'B')}" for name, size in self.memory.items() if name != "peak")
            lines.append(f"peak memory  {readable(self.memory['peak'], 'B')}  ({detail})")
        barriers = [n for n in self.after.nodes if n.op.name == "barrier"]
        if barriers:
            kept = sum(size_bytes(bound_type(n.type, self.sizes)) for n in {n.inputs[0] for n in barriers})
            lines.append(
                f"remat        the backward pass computes results again from {readable(kept, 'B')} that are kept"
            )
        lines.append("kernels      " + (", ".join(f"{k}={v}" for k, v in self.options.items()) or "XLA's defaults"))
        lines += [f"             {line}" for line in self._kernels()]
        lines += [f"table {name}: {how}" for name, how in self.tables.items()]
        if self.half_precision:
            lines.append(f"bfloat16     {self.half_precision}")
        lines += self._regions()
        lines += ["", *self._layers(), "", "--- ops", *self._ops()]
        lines += ["", "--- before", print_graph(self.before), "", "--- after", print_graph(self.after), ""]
        return "\n".join(lines)

    def _kernels(self) -> list[str]:
        """For each op that has several lowerings: how often each was taken, and who chose it."""
        rows: dict[str, collections.Counter[str]] = {}
        for n, picked in self.picked.items():
            rows.setdefault(n.op.name, collections.Counter())[f"{picked.name} ({picked.by})"] += 1
        return [f"{op}: " + ", ".join(f"{name} x{k}" for name, k in rows[op].most_common()) for op in sorted(rows)]

    def _regions(self) -> list[str]:
        """The kernels as they ran, the slow ones one by one."""
        if self.limit is None:
            return []
        shown = [r for r in self.regions if r.seconds >= 0.002 * self.seconds or r.seconds >= 1e-4][:SHOWN]
        rest = self.regions[len(shown) :]
        lines = [
            "",
            f"--- kernels as they ran: {1e3 * self.seconds:.3f} ms a call, "
            f"{self.flops / max(self.seconds, 1e-9) / 1e9:.1f} GFLOP/s; the machine's peak, measured: "
            f"{self.limit.flops_s / 1e9:.0f} GFLOP/s, {self.limit.bytes_s / 1e9:.0f} GB/s",
            HEAD,
            *(r.text for r in shown),
        ]
        if rest:
            lines.append(f"{1e3 * sum(r.seconds for r in rest):9.3f}  in {len(rest)} others")
        if any(r.share > 1 for r in shown):
            lines.append(
                "above 100 %: arrays that lay in a cache; or Winograd's kernels, which need fewer operations than the plain "
                "convolution's that are counted"
            )
        return lines

    def _layers(self) -> list[str]:
        rows: dict[str, list[float]] = {}
        for n in self.after.nodes:
            row = rows.setdefault(n.source or "(none)", [0, 0, 0])
            row[0] += 1
            row[1] += flops(n, self.sizes)
            row[2] += bytes_moved(n, self.sizes)
        width = max(map(len, rows), default=0)
        head = f"{'--- layer':<{width}}  nodes      flops      bytes"
        return [head] + [
            f"{name:<{width}}  {int(count):5d}  {readable(cost):>9}  {readable(moved, 'B'):>9}"
            for name, (count, cost, moved) in rows.items()
        ]

    def _ops(self) -> list[str]:
        old, new = (collections.Counter(n.op.name for n in g.nodes) for g in (self.before, self.after))
        return [f"{name:<20} {old[name]:4d} -> {new[name]:4d}" for name in sorted({*old, *new})]


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The explained graphs of a model; printing it shows `text`."""

    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.parts)

    def __str__(self) -> str:
        return self.text

    def save(self, path: str | os.PathLike[str], kind: str | None = None) -> None:
        """Draws the optimised graph of `kind` (the first one by default) into a PNG file.

        Raises:
            ProgramError: there is no graph of that kind.
        """
        from .picture import draw

        part = self._part(kind)
        draw(part.after, part.sizes, path, f"{part.kind}: {readable(part.flops)} flops")

    def save_roofline(self, path: str | os.PathLike[str], kind: str | None = None) -> None:
        """Plots the kernels of `kind` (the first one by default) under the machine's roof, into a .png or .html file.

        Raises:
            ProgramError: there is no graph of that kind, or its kernels were not measured.
        """
        from . import roofline

        part = self._part(kind)
        if part.limit is None:
            raise ProgramError(f"the {part.kind} graph was not measured: explain with compile=True and measure=True")
        title = f"{part.kind}: {1e3 * part.seconds:.2f} ms, {readable(part.flops)} FLOPs"
        roofline.save(path, part.regions, part.limit, title)

    def _part(self, kind: str | None) -> Part:
        for part in self.parts:
            if kind in (None, part.kind):
                return part
        raise ProgramError(f"no {kind} graph was explained; there are {', '.join(p.kind for p in self.parts)}")


def explain(
    subject: StepSource | Graph,
    kind: str | None = None,
    rows: int = 32,
    lengths: Mapping[str, int] | None = None,
    compile: bool = True,
    measure: bool = True,
) -> Explanation:
    r"""What the compiler makes of a model.

    Args:
        subject: a model's graphs, or one graph.
        kind: which graph ("train", "test", "predict", "update"); all by default. For a lone graph: which passes to run
            ("train" by default).
        rows: the number of rows that costs are counted for.
        lengths: numbers for other unknown sizes; 16 where not given.
        compile: also compile, which tells memory and XLA's own counts.
        measure: also run what was compiled, on random arrays, and time each kernel.

    Raises:
        ProgramError: there is no graph of that kind.

    >>> from kerasoft.compiler.ir import Graph, symbol
    >>> from kerasoft.compiler.ops.registry import input_node
    >>> x = input_node("x", (symbol("b"), 2), "float32")
    >>> explained = explain(Graph((x,), (x * 1.0 + x,), ("y",)), rows=4, compile=False)
    >>> print(*explained.text.splitlines()[:4], sep="\n")
    === train (b = 4)
    nodes        4 -> 2  (SimplifyAlgebra -2)
    stages       1
    flops        8
    """
    if isinstance(subject, Graph):
        return Explanation((_part(kind or "train", subject, subject, rows, lengths, compile, measure),))
    parts = []
    for one in KINDS if kind is None else (kind,):
        graph = getattr(subject, one, None)
        if graph is None:
            if kind is not None:
                raise ProgramError(f"this StepSource has no {kind} graph")
            continue
        more = {"n": subject.layout.P, **(lengths or {})} if one == "update" else lengths
        part = _part(one, graph, subject.optimised(one), rows, more, compile, measure)
        parts.append(dataclasses.replace(part, tables=_tables(subject, rows)) if one == "train" else part)
    return Explanation(tuple(parts))


def _tables(source: StepSource, rows: int) -> dict[str, str]:
    chosen = {t.name for t in source.tables_by_rows(rows)}
    small = f"updated whole: too small for batches of {rows} rows to touch few of its rows"
    found = {name: "updated by rows, in one process" if name in chosen else small for name in source.tables}
    train = source.train
    reasons = {**(find_tables(train)[1] if train is not None else {}), **source.whole}
    return found | {name: f"updated whole: {reason}" for name, reason in reasons.items()}


def _part(
    kind: str,
    graph: Graph,
    done: Graph,
    rows: int,
    lengths: Mapping[str, int] | None,
    compile: bool,
    measure: bool,
) -> Part:
    sizes: dict[str, Dim] = {name: 16 for name in sorted(unknown_sizes(graph))} | dict(lengths or {})
    if "b" in sizes:
        sizes["b"] = rows
    after = graph
    changes: dict[str, int] = {}
    while True:
        start = after
        for one in passes_for(kind):
            made = one.run(after)
            if made is not after:
                changes[one.name] = changes.get(one.name, 0) + len(after.nodes) - len(made.nodes)
            after = made
        if after is start:
            break
    chooser = Chooser(after, sizes)
    memory: dict[str, int] = {}
    xla: dict[str, float] = {}
    regions: tuple[Region, ...] = ()
    seconds, limit, half = 0.0, None, ""
    if compile:
        bound: list[Node] = [*after.inputs, *after.params]
        types: list[Any] = [bound_type(n.type, sizes) for n in bound]
        executable = _compiled(after, bound, types, chooser)
        memory, xla = _facts(executable)
        if measure:
            limit = peak()
            regions, seconds = regions_of(executable, after, sizes, random_arrays(types, 0.05), limit)
            half = half_precision.remark(after, sizes)
    return Part(
        kind, graph, after, {k: sizes[k] for k in sorted(sizes)}, changes, total_flops(after, sizes),
        total_bytes(after, sizes), memory, xla, len(split_stages(after)), chooser.options,
        chooser.picked, regions, seconds, limit, half,
    )  # fmt: skip


def _compiled(graph: Graph, bound: list[Node], types: list[Any], chooser: Chooser) -> Any:
    """The executable, whose text names the graph's nodes by their number."""
    shapes = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in types]
    lowerer = scoped(chooser, {n: i for i, n in enumerate(graph.nodes)})
    jitted = jax.jit(function(graph, bound, lowerer), compiler_options=chooser.options or None, keep_unused=True)
    return jitted.lower(*shapes).compile()


def _facts(executable: Any) -> tuple[dict[str, int], dict[str, float]]:
    stats: Any = executable.memory_analysis()
    costs = executable.cost_analysis() or {}
    memory = {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
    }
    memory["peak"] = sum(memory.values()) - stats.alias_size_in_bytes
    return memory, {"flops": float(costs.get("flops", 0)), "bytes": float(costs.get("bytes accessed", 0))}
