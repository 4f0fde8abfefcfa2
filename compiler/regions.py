"""Each kernel of a compiled graph as it ran: which nodes it computes, FLOPs, bytes, time, and how much of the machine.

A region is one instruction of XLA's compiled program: a fusion, a product, a loop, or a call of a native kernel. Its
time is taken from JAX's profiler while the whole executable runs, from the start of the kernel until it has finished,
the shortest of several runs. Kernels may run at the same time, so times may add up to more than the whole. FLOPs are the
graph's (multiply-adds count as two) of the nodes inside; a node that several kernels share counts where its product is,
else in equal parts. Bytes are what the kernel's arguments and results hold, each read or written once.
"""

from __future__ import annotations

import collections
import dataclasses
import glob
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .costs import flops, readable
from .hlo_text import FREE, Instruction, computations, inside, kernel_of, scope
from .ir import Dim, Graph, Node
from .kernels.peak import Peak

ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class Region:
    """
    Attributes:
        name: of XLA's instruction. kernel: what computes it. nodes: the graph's nodes inside.
        flops, bytes: see above. seconds: 0 where the profiler saw nothing. share: of the machine's peak;
            above 1 for arrays out of a cache, and where a kernel needs fewer operations than are counted (Winograd's).
    """

    name: str
    kernel: str
    nodes: tuple[Node, ...]
    flops: float
    bytes: int
    seconds: float
    share: float

    @property
    def what(self) -> str:
        """Layers and ops, e.g. "conv1: conv, relu"."""
        labels = list(dict.fromkeys(n.source for n in self.nodes if n.source))
        ops = list(dict.fromkeys(n.op.name for n in self.nodes if n.op.name != "item"))
        short = lambda names: ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        return ": ".join(filter(None, (short(labels), short(ops)))) or self.name

    @property
    def text(self) -> str:
        rate = f"{self.flops / self.seconds / 1e9:7.1f}" if self.seconds else f"{'-':>7}"
        percent = f"{100 * self.share:5.0f} %" if self.seconds else f"{'-':>7}"
        return (
            f"{1e3 * self.seconds:9.3f}  {readable(self.flops):>8}  {readable(self.bytes, 'B'):>8}  {rate}  {percent}  "
            f"{self.kernel:<22}  {self.what}"
        )


HEAD = f"{'ms':>9}  {'flops':>8}  {'bytes':>8}  {'GFLOP/s':>7}  {'of peak':>7}  {'kernel':<22}  layers: ops"


def scoped(lowerer: Callable, order: Mapping[Node, int]) -> Callable:
    """`lowerer`, each node under a name scope that the executable's text shows."""

    def lower(n: Node, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Callable[..., Any]:
        run = lowerer(n, inputs, attrs)

        def named(*arrays, **given):
            with jax.named_scope(scope(order[n])):
                return run(*arrays, **given)

        return named if n in order else run

    return lower


def regions_of(
    executable: Any, graph: Graph, sizes: Mapping[str, Dim], arrays: Sequence[np.ndarray], limit: Peak
) -> tuple[tuple[Region, ...], float]:
    """The kernels of `executable`, slowest first, and the seconds of a whole call.

    Args:
        executable: compiled from `graph` with a `scoped` lowerer.
        sizes: the numbers behind unknown sizes. arrays: its arguments.
        limit: what the machine can do.
    """
    nodes = graph.nodes
    all_, entry = computations(executable.as_text())
    kernels = [i for i in all_[entry] if i.opcode not in FREE]
    parts = {i.name: inside(i, all_) for i in kernels}
    seconds, whole = _profiled(executable, arrays, kernels, parts)
    held = {i.name: sorted({s for p in parts[i.name] for s in p.scopes if s < len(nodes)}) for i in kernels}
    of_node = _flops_by_kernel(kernels, parts, held, [flops(n, sizes) for n in nodes])
    size = {i.name: i.result_bytes for i in all_[entry]}
    made = []
    for i in kernels:
        moved = i.result_bytes + sum(size.get(o, 0) for o in dict.fromkeys(i.operands))
        count, spent = of_node[i.name], seconds.get(i.name, 0.0)
        share = limit.share(count, moved, spent) if spent else 0.0
        inner = tuple(nodes[s] for s in held[i.name])
        made.append(Region(i.name, kernel_of(i, parts[i.name]), inner, count, moved, spent, share))
    return tuple(sorted(made, key=lambda r: -r.seconds)), whole


def _flops_by_kernel(kernels, parts, held, costs: Sequence[int]) -> dict[str, float]:
    places: dict[int, list[str]] = collections.defaultdict(list)
    heavy: dict[int, list[str]] = collections.defaultdict(list)
    for i in kernels:
        for s in held[i.name]:
            places[s].append(i.name)
        for p in parts[i.name]:
            if p.opcode in ("dot", "convolution", "custom-call", "while"):
                for s in p.scopes:
                    if i.name not in heavy[s]:
                        heavy[s].append(i.name)
    total: dict[str, float] = collections.defaultdict(float)
    for s, names in places.items():
        chosen = heavy[s] or names
        for name in chosen:
            total[name] += costs[s] / len(chosen)
    return total


def _profiled(
    executable: Any, arrays: Sequence[Any], kernels: Sequence[Instruction], parts: Mapping[str, list[Instruction]]
) -> tuple[dict[str, float], float]:
    """{kernel: seconds} and the seconds of a call, each the shortest of several; nothing where the profiler is in use."""
    from jax.profiler import ProfileData, ProfileOptions

    with jax.ensure_compile_time_eval():
        arrays = [jax.device_put(a) for a in arrays]
    jax.block_until_ready(executable(*arrays))
    options = ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            with jax.profiler.trace(folder, profiler_options=options):
                for _ in range(ROUNDS):
                    jax.block_until_ready(executable(*arrays))
        except RuntimeError:  # another profile is being taken
            return {}, 0.0
        files = glob.glob(os.path.join(folder, "**", "*.xplane.pb"), recursive=True)
        data = ProfileData.from_file(files[0])
    owner = {p.name: name for name, inner in parts.items() for p in inner}
    owner |= {i.name: i.name for i in kernels}
    spans = _spans(data)
    runs: dict[Any, dict[str, float]] = collections.defaultdict(lambda: collections.defaultdict(float))
    extent: dict[Any, list[float]] = {}
    direct = {op for run, op, *_ in spans}
    for run, op, start, end in spans:
        name = owner.get(op)
        if name is not None and (op == name or name not in direct):  # what a loop runs inside is in the loop's own time
            runs[run][name] += (end - start) / 1e9
            first, last = extent.get(run, (start, end))
            extent[run] = [min(first, start), max(last, end)]
    best: dict[str, float] = {}
    for found in runs.values():
        for name, spent in found.items():
            best[name] = min(best.get(name, spent), spent)
    return best, min(((b - a) / 1e9 for a, b in extent.values()), default=0.0)


def _spans(data: Any) -> list[tuple[Any, str, float, float]]:
    """(run, instruction, start, end) in nanoseconds; a kernel that goes on in other threads ends with its "end:" event."""
    begun: dict[Any, tuple[Any, str, float, float]] = {}
    ends: dict[Any, float] = {}
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    end = event.start_ns + event.duration_ns
                    begun[stats.get("_p", len(begun))] = (stats.get("run_id"), stats["hlo_op"], event.start_ns, end)
                elif event.name.startswith("end: ") and "_c" in stats:
                    ends[stats["_c"]] = max(ends.get(stats["_c"], 0.0), event.start_ns + event.duration_ns)
    return [(run, op, start, max(end, ends.get(key, 0.0))) for key, (run, op, start, end) in begun.items()]
