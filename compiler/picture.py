"""A graph as a picture: one box for each layer (or each op that belongs to none), inputs at the top."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Mapping

from .costs import bound_type, flops, readable
from .ir import Dim, Graph, Node

COLOURS = ("#dbe9f6", "#fde4cf", "#e2f0d9", "#f4dcec", "#fff5cc", "#e4dff2", "#d9f0ee", "#f2e3d5")


@dataclasses.dataclass(eq=False)
class Box:
    """Nodes that are drawn as one."""

    label: str
    nodes: list[Node] = dataclasses.field(default_factory=list)
    before: set[Box] = dataclasses.field(default_factory=set)
    row: int = 0
    x: float = 0.0

    def reaches(self, other: Box) -> bool:
        """Whether `other` is this box or one of its ancestors."""
        seen, stack = {self}, [self]
        while stack:
            box = stack.pop()
            if box is other:
                return True
            stack += box.before - seen
            seen |= box.before
        return False


def boxes_of(graph: Graph) -> list[Box]:
    """The boxes in topological order: nodes of one layer together, as long as no other box lies between them."""
    place: dict[Node, Box] = {}
    latest: dict[str, Box] = {}
    made: list[Box] = []
    for n in graph.nodes:
        if n.op.name in ("param", "constant"):
            continue
        before = {place[i] for i in n.inputs if i in place}
        label = n.attrs["name"] if n.op.name == "input" else n.source or ""
        box = latest.get(label) if n.op.name != "input" else None
        if not label and n.op.name in ("item", "reshape", "broadcast_to", "cast") and len(before) == 1:
            box = next(iter(before))
        elif not label or box is None or any(b is not box and b.reaches(box) for b in before):
            box = Box(label or n.op.name)
            made.append(box)
            if label and n.op.name != "input":
                latest[label] = box
        box.nodes.append(n)
        box.before |= before - {box}
        place[n] = box
    return _sorted(made)


def _sorted(boxes: list[Box]) -> list[Box]:
    """Inputs before users, with `row` set to the longest way from an input."""
    order: list[Box] = []
    state: dict[Box, bool] = {}

    def visit(box: Box) -> None:
        if box in state:
            return
        state[box] = True
        for b in sorted(box.before, key=boxes.index):
            visit(b)
        box.row = max((b.row + 1 for b in box.before), default=0)
        order.append(box)

    for box in boxes:
        visit(box)
    users = {b: [o.row for o in order if b in o.before] for b in order if not b.before}
    for box, rows in users.items():  # an input stands just above its first user
        box.row = max(0, min(rows, default=1) - 1)
    return order


def describe(box: Box, sizes: Mapping[str, Dim]) -> str:
    """The text in a box: name, ops, weights, result, flops."""
    if box.nodes[0].op.name == "input":
        return f"{box.label}\n{bound_type(box.nodes[0].type, sizes)}"
    counts = collections.Counter(n.op.name for n in box.nodes if n.op.name not in ("item", "broadcast_to", "reshape"))
    ops = ", ".join(f"{name} x{count}" if count > 1 else name for name, count in counts.most_common(4))
    if len(counts) > 4:
        ops += ", ..."
    inside = set(box.nodes)
    weights = dict.fromkeys(i for n in box.nodes for i in n.inputs if i.op.name == "param" and i not in inside)
    lines = [box.label, ops] if ops and ops != box.label else [box.label]
    if len(weights) <= 4:
        lines += [f"{w.attrs['name'].rsplit('/', 1)[-1]} {list(w.shape)}" for w in weights]
    else:
        lines.append(f"{len(weights)} weights")
    cost = sum(flops(n, sizes) for n in box.nodes)
    lines.append(f"-> {bound_type(box.nodes[-1].type, sizes)}" + (f"   {readable(cost)} flops" if cost else ""))
    return "\n".join(line if len(line) <= 46 else line[:43] + "..." for line in lines)


def place_boxes(boxes: list[Box]) -> list[list[Box]]:
    """Rows of boxes, each box near the middle of the ones it reads and the ones that read it."""
    rows: list[list[Box]] = [[] for _ in range(max((b.row for b in boxes), default=-1) + 1)]
    for box in boxes:
        rows[box.row].append(box)
    users: dict[Box, list[Box]] = {}
    for box in boxes:
        for b in box.before:
            users.setdefault(b, []).append(box)
    for row in rows:
        for i, box in enumerate(row):
            box.x = i - (len(row) - 1) / 2
    for sweep in range(8):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            near = {b: [*b.before] if sweep % 2 == 0 else users.get(b, []) for b in row}
            wanted = {b: sum(o.x for o in near[b]) / len(near[b]) if near[b] else b.x for b in row}
            row.sort(key=lambda b: wanted[b])
            middle = sum(wanted.values()) / len(row)
            for i, box in enumerate(row):
                box.x = middle + i - (len(row) - 1) / 2
    return rows


def draw(graph: Graph, sizes: Mapping[str, Dim], path: str | os.PathLike[str], title: str) -> None:
    """Writes the picture of `graph` to the PNG file `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    boxes = boxes_of(graph)
    rows = place_boxes(boxes)
    texts = {box: describe(box, sizes) for box in boxes}
    heights = [0.16 * max(texts[b].count("\n") + 1 for b in row) + 0.55 for row in rows]  # inches
    left, right = min(b.x for b in boxes) - 0.6, max(b.x for b in boxes) + 0.6
    wide, inches = 3.4, sum(heights) + 0.8
    scale = min(1.0, 300 / inches, 300 / (wide * (right - left)))
    figure = Figure(figsize=(max(4.0, wide * (right - left)) * scale, inches * scale), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(wide * left, wide * right)
    axes.set_ylim(inches, 0)
    axes.text(wide * (left + right) / 2, 0.3, title, ha="center", va="center", fontsize=11 * scale, weight="bold")
    tops = [0.8 + sum(heights[:k]) for k in range(len(rows))]
    layers = list(dict.fromkeys(b.label.removeprefix("gradient of ") for b in boxes))
    outputs = set(graph.outputs)
    for box in boxes:
        y = tops[box.row]
        bottom = {b: tops[b.row] + 0.16 * (texts[b].count("\n") + 1) + 0.12 for b in box.before}
        for b in box.before:
            near = box.row == b.row + 1
            bend = "arc3" if near else f"arc3,rad={0.12 if box.x <= b.x else -0.12}"
            axes.annotate(
                "", (wide * box.x, y - 0.06), (wide * b.x, bottom[b]), zorder=1,
                arrowprops={
                    "arrowstyle": "-|>", "color": "#777777" if near else "#bbbbbb", "lw": 0.9 * scale,
                    "connectionstyle": bend,
                },
            )  # fmt: skip
        colour = COLOURS[layers.index(box.label.removeprefix("gradient of ")) % len(COLOURS)]
        final = any(n in outputs for n in box.nodes)
        axes.text(
            wide * box.x, y, texts[box], ha="center", va="top", zorder=2, fontsize=7.5 * scale, linespacing=1.25,
            bbox={"boxstyle": "round,pad=0.35", "fc": colour, "ec": "#222222" if final else "#aaaaaa", "lw": 1.6 if final else 0.8},
        )  # fmt: skip
    FigureCanvasAgg(figure).print_png(os.fspath(path))
