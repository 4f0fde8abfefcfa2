"""A roofline: each kernel's FLOP/s over its FLOPs per byte, under what the machine can do. As HTML (SVG) or PNG.

Source: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model".
"""

from __future__ import annotations

import html
import math
import os
from collections.abc import Sequence

from .costs import readable
from .errors import ProgramError
from .kernels.peak import Peak
from .regions import Region

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 960, 560, 80, 60, 50, 30
NATIVE, XLA, ROOF = "#c4502a", "#2f6fb0", "#444444"


def save(path: str | os.PathLike[str], regions: Sequence[Region], limit: Peak, title: str) -> None:
    """Writes the plot into `path`.

    Raises:
        ProgramError: no region was timed; or the name ends neither with .png nor with .html.
    """
    path = os.fspath(path)
    timed = [r for r in regions if r.seconds and r.flops and r.bytes]
    if not timed:
        raise ProgramError(f"{path}: no kernel was timed: explain with compile=True and measure=True")
    if path.endswith(".png"):
        _png(path, timed, limit, title)
    elif path.endswith(".html"):
        with open(path, "w", encoding="utf-8") as file:
            file.write(_page(timed, limit, title))
    else:
        raise ProgramError(f"a roofline is written as .png or .html, got {path}")


class _Axes:
    """Decades that hold every point and the roof's corner, and where they lie on the page."""

    def __init__(self, regions: Sequence[Region], limit: Peak):
        corner = limit.flops_s / limit.bytes_s
        xs = [r.flops / r.bytes for r in regions] + [corner]
        ys = [r.flops / r.seconds for r in regions] + [limit.flops_s]
        low = max(min(ys), limit.flops_s / 1e5)
        self.x = math.floor(math.log10(max(min(xs), 1e-3))), math.ceil(math.log10(max(xs)) + 0.2)
        self.y = math.floor(math.log10(low)), math.ceil(math.log10(max(ys)) + 0.1)

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (math.log10(max(x, 10.0 ** self.x[0])) - self.x[0]) / (self.x[1] - self.x[0])
        up = (math.log10(max(y, 10.0 ** self.y[0])) - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)


def _size(region: Region, regions: Sequence[Region]) -> float:
    """A radius whose area grows with the region's part of the time."""
    return 3 + 22 * math.sqrt(region.seconds / sum(r.seconds for r in regions))


def _page(regions: Sequence[Region], limit: Peak, title: str) -> str:
    axes = _Axes(regions, limit)
    parts = []
    for power in range(axes.x[0], axes.x[1] + 1):
        x, _ = axes.place(10.0**power, 1)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10.0**power:g}</text>')
    for power in range(axes.y[0], axes.y[1] + 1):
        _, y = axes.place(1, 10.0**power)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{readable(10.0**power)}</text>')
    roof = [axes.place(x, min(limit.flops_s, x * limit.bytes_s)) for x in _roof(axes, limit)]
    parts.append(f'<polyline class="roof" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in roof)}"/>')
    x, y = axes.place(limit.flops_s / limit.bytes_s, limit.flops_s)
    peaks = f"{limit.flops_s / 1e9:.0f} GFLOP/s, {limit.bytes_s / 1e9:.0f} GB/s"
    parts.append(f'<text x="{WIDTH - RIGHT - 4}" y="{y - 8:.1f}" text-anchor="end" class="label">{peaks}</text>')
    for r in sorted(regions, key=lambda r: -r.seconds):
        x, y = axes.place(r.flops / r.bytes, r.flops / r.seconds)
        colour = NATIVE if r.kernel.startswith("kerasoft.") else XLA
        tip = html.escape(f"{r.what}\n{r.kernel}: {1e3 * r.seconds:.3f} ms, {100 * r.share:.0f} % of the peak")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_size(r, regions):.1f}" fill="{colour}"><title>{tip}</title></circle>'
        )
    for x, colour, text in ((LEFT, XLA, "XLA's kernels"), (LEFT + 130, NATIVE, "native kernels")):
        parts.append(f'<circle cx="{x + 6}" cy="{TOP - 12}" r="6" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="{TOP - 8}">{text} (area: time)</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle" class="label">FLOPs per byte</text>')
    parts.append(
        f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle" class="label">FLOP/s</text>'
    )
    rows = "".join(
        f"<tr><td>{1e3 * r.seconds:.3f}</td><td>{readable(r.flops)}</td><td>{readable(r.bytes, 'B')}</td>"
        f"<td>{r.flops / r.seconds / 1e9:.1f}</td><td>{100 * r.share:.0f} %</td>"
        f"<td class='t'>{html.escape(r.kernel)}</td><td class='t'>{html.escape(r.what)}</td></tr>"
        for r in regions
    )
    head = "".join(f"<th>{h}</th>" for h in ("ms", "FLOPs", "bytes", "GFLOP/s", "of peak", "kernel", "layers: ops"))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>
body {{ font: 14px sans-serif; margin: 24px; color: #222; max-width: 1100px }} svg {{ width: 100%; max-width: {WIDTH}px }}
svg text {{ font: 12px sans-serif; fill: #333 }} svg text.label {{ font-weight: bold }} .grid {{ stroke: #e3e3e3 }}
.roof {{ fill: none; stroke: {ROOF}; stroke-width: 2 }} circle {{ fill-opacity: .65; stroke: #fff }}
td, th {{ padding: 2px 10px; text-align: right }} td.t, th:nth-child(n+6) {{ text-align: left }}
tr:nth-child(even) {{ background: #f5f5f5 }}</style><h1 style="font-size:18px">{html.escape(title)}</h1>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="roofline">{"".join(parts)}</svg>
<table><tr>{head}</tr>{rows}</table></html>
"""


def _roof(axes: _Axes, limit: Peak) -> list[float]:
    corner = limit.flops_s / limit.bytes_s
    start = max(10.0 ** axes.x[0], 10.0 ** axes.y[0] / limit.bytes_s)
    return [start, corner, 10.0 ** axes.x[1]]


def _png(path: str, regions: Sequence[Region], limit: Peak, title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axes = _Axes(regions, limit)
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=140)
    plot = figure.add_subplot(xscale="log", yscale="log")
    xs = _roof(axes, limit)
    plot.plot(xs, [min(limit.flops_s, x * limit.bytes_s) for x in xs], color=ROOF, lw=2)
    plot.set(xlim=(10.0 ** axes.x[0], 10.0 ** axes.x[1]), ylim=(10.0 ** axes.y[0], 10.0 ** axes.y[1]))
    peaks = f"{limit.flops_s / 1e9:.0f} GFLOP/s, {limit.bytes_s / 1e9:.0f} GB/s"
    plot.text(10.0 ** axes.x[1], limit.flops_s * 1.1, peaks + " ", ha="right", va="bottom", weight="bold", fontsize=9)
    for colour, label, own in ((XLA, "XLA's kernels", False), (NATIVE, "native kernels", True)):
        chosen = [r for r in regions if r.kernel.startswith("kerasoft.") == own]
        areas = [math.pi * _size(r, regions) ** 2 * 0.5 for r in chosen]
        points = [r.flops / r.bytes for r in chosen], [r.flops / r.seconds for r in chosen]
        plot.scatter(*points, s=areas, color=colour, alpha=0.65, edgecolors="white", label=f"{label} (area: time)")
    legend = plot.legend(loc="lower right", fontsize=8)
    for handle in legend.legend_handles:
        handle.set_sizes([40])  # type: ignore[union-attr]
    plot.set_xlabel("FLOPs per byte")
    plot.set_ylabel("FLOP/s")
    plot.set_title(title, fontsize=10)
    plot.grid(color="#e3e3e3")
    plot.set_axisbelow(True)
    FigureCanvasAgg(figure).print_png(path)
