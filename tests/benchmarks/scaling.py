"""Tables and plots of docs/scaling.md: predictions for 2 to 1,024 nodes from costs measured on this machine.

    python tests/benchmarks/scaling.py [--folder docs/scaling]

Each model's compute is that of docs/performance.md (two cores; a node with k times the cores and k times the rows takes as
long). No cluster, no measurement: a few seconds.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from kerasoft.runtime import AllReduce, Downpour, LocalSGD, ShuffleAllReduce, StaleSynchronous
from kerasoft.runtime.scaling import Failures, Job, Network, Spark, Stragglers, predict
from kerasoft.runtime.scaling.__main__ import STRATEGIES
from PIL import Image

GBIT = (1, 10, 25, 100)
NODES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SPREAD = 0.05
UPDATE_S = Job(1, 1, 1).update_s

MODELS = {  # name: parameters, seconds of a step of one worker, more
    "Inception-v1": (6_998_552, 8 / 18.0, {}),
    "ResNet-50": (25_636_712, 8 / 7.1, {}),
    "NCF": (31_700_000, 98_304 / 177_103, {}),  # so many rows touch the tables nearly whole
    "Transformer 100 M": (100e6, 6 * 100e6 * 1024 / 140e9, {}),
}
EXACT = (
    "AllReduce()", 'AllReduce(topology="ring")', 'AllReduce(topology="tree")',
    'AllReduce(wire_dtype="bfloat16")', 'AllReduce(topology="ring", wire_dtype="bfloat16")',
)  # fmt: skip
CRAY = {16: 920, 32: 1887, 64: 3421, 96: 4854, 128: 5876, 196: 7357, 256: 7861}  # images/s, read off a chart
CRAY_BATCH = 88  # images a node: published batches of 1,404, 5,632 and 8,448 on 16, 64 and 96


@functools.cache
def step(name: str, model: str, gbit: int, nodes: int, chance: float = 0.0):
    parameters, step_s, more = MODELS[model]
    compute = step_s - UPDATE_S * (parameters - more.get("table", 0) + more.get("touched", 0))
    return predict(
        STRATEGIES[name](nodes),
        Job(parameters, compute, nodes, Network.ethernet(gbit), Stragglers(SPREAD, chance), steps=120, **more),
    )


def efficiencies() -> None:
    for gbit in GBIT:
        print(f"\n### {gbit} GbE\n\n| strategy | " + " | ".join(f"{m}: 32, 128, 1,024" for m in MODELS) + " |")
        print("|---" * (len(MODELS) + 1) + "|")
        for name in STRATEGIES:
            cells = [", ".join(f"{step(name, m, gbit, n).efficiency:.1%}" for n in (32, 128, 1024)) for m in MODELS]
            print(f"| `{name}` | " + " | ".join(cells) + " |")


def first(model: str, gbit: int, holds) -> str:
    """The node numbers, of `NODES`, at which something holds."""
    found = [n for n in NODES if holds(n, lambda name, n=n: step(name, model, gbit, n).step_s)]
    if not found:
        return "–"
    return f"{found[0]} to {found[-1]}" if found[-1] != found[0] else str(found[0])


QUESTIONS = {
    "ring faster than direct": lambda n, s: s('AllReduce(topology="ring")') < s("AllReduce()"),
    "tree the fastest of the three": lambda n, s: s('AllReduce(topology="tree")') < min(s(EXACT[0]), s(EXACT[1])),
    "bfloat16 saves 5 %": lambda n, s: min(s(e) for e in EXACT[3:]) < 0.95 * min(s(e) for e in EXACT[:3]),
    "compression saves 5 % more than bfloat16": lambda n, s: (
        s('AllReduce(compression="threshold")') < 0.95 * min(s(e) for e in EXACT)
    ),
    "4 buckets save 5 %": lambda n, s: s('AllReduce(buckets=4, topology="ring")') < 0.95 * min(s(e) for e in EXACT[:3]),
    "double buffering saves 10 %": lambda n, s: (
        s('AllReduce(double_buffering=True, topology="ring")') < 0.9 * min(s(e) for e in EXACT)
    ),
    "LocalSGD(10) saves 10 % more than double buffering": lambda n, s: (
        s('LocalSGD(10, topology="ring")')
        < 0.9 * min(*(s(e) for e in EXACT), s('AllReduce(double_buffering=True, topology="ring")'))
    ),
}


def crossovers() -> None:
    print("\n| of 2 to 1,024 nodes | GbE | " + " | ".join(MODELS) + " |\n" + "|---" * (len(MODELS) + 2) + "|")
    for question, holds in QUESTIONS.items():
        for gbit in GBIT:
            print(f"| {question} | {gbit} | " + " | ".join(first(m, gbit, holds) for m in MODELS) + " |")


def stragglers() -> None:
    print(
        "\n| a gradient in a hundred takes 4 times as long; ResNet-50, 10 GbE | 32 | 128 | 1,024 |\n|---|---|---|---|"
    )
    parameters, step_s, _ = MODELS["ResNet-50"]
    for strategy in (
        AllReduce(topology="ring"), AllReduce(topology="ring", double_buffering=True), StaleSynchronous(1), StaleSynchronous(3), StaleSynchronous(10),
        LocalSGD(10, topology="ring"), Downpour(1, 1),
    ):  # fmt: skip
        cells = []
        for n in (32, 128, 1024):
            job = Job(parameters, step_s, n, Network.ethernet(10), Stragglers(SPREAD, 0.01), steps=240)
            p = predict(strategy, job)
            cells.append(f"{p.efficiency:.1%} (waiting {1e3 * p.wait_s:.0f} ms)")
        options = [
            f"{k}={getattr(strategy, k)}"
            for k in ("topology", "double_buffering", "staleness", "tau", "n_fetch", "n_push")
            if getattr(strategy, k, 0) not in (0, "direct")
        ]
        print(f"| `{type(strategy).__name__}({', '.join(options)})` | " + " | ".join(cells) + " |")


def failures() -> None:
    print("\n| a node dies every | 32 | 128 | 1,024 nodes |\n|---|---|---|---|")
    for name, days in (("365 days", 365), ("30 days", 30), ("day", 1)):
        made = Failures(days * 86400, restart_s=20, checkpoint_every_s=30, checkpoint_s=0.25)
        print(f"| {name} | " + " | ".join(f"{made.stretch(n) - 1:.1%}" for n in (32, 128, 1024)) + " |")


def bigdl(nodes: int, gbit: float = 10):
    """BigDL's two jobs on its Cray, as far as published figures say: JVM bytes, scheduling as without Drizzle, blocks."""
    compute = CRAY_BATCH / (CRAY[16] / 16)
    spark = Spark(job_s=0.036 * compute, task_s=0.074 * compute / 446 / 3, byte_s=2e-10)
    return predict(ShuffleAllReduce(), Job(6_998_552, compute, nodes, Network.ethernet(gbit), spark=spark, steps=20))


def small_batches() -> None:
    print("\n| NCF, 2,048 rows a node (11.6 ms), tables by rows | 2 | 8 | 32 | 128 |\n|---|---|---|---|---|")
    touched, dense = 1_255_000, 170_000  # 5.7 MB a step by two ranks: docs/performance.md
    compute = 2048 / 177_103 - UPDATE_S * (touched + dense)
    for gbit in GBIT:
        cells = []
        for n in (2, 8, 32, 128):
            job = Job(31_700_000, compute, n, Network.ethernet(gbit), table=31_530_000, touched=touched, steps=20)
            cells.append(f"{predict(AllReduce(topology='ring'), job).efficiency:.1%}")
        print(f"| {gbit} GbE | " + " | ".join(cells) + " |")


def published_sync() -> None:
    print("\n| sync / compute, Inception-v1 (88 images, 1.53 s), 10 GbE | 4 | 8 | 16 | 32 |\n|---|---|---|---|---|")
    print("| BigDL, published | 4 % | 4.5 % | 5 % | 7 % |")
    for strategy in (
        AllReduce(),
        AllReduce(topology="ring"),
        AllReduce(wire_dtype="bfloat16"),
        AllReduce(topology="ring", wire_dtype="bfloat16"),
    ):
        cells = []
        for n in (4, 8, 16, 32):
            job = Job(6_998_552, CRAY_BATCH / (CRAY[16] / 16), n, Network.ethernet(10), steps=2)
            cells.append(f"{predict(strategy, job).sync_share:.1%}")
        print(f"| AllReduce, {strategy.topology}, {strategy.wire_dtype} | " + " | ".join(cells) + " |")


def plain(nodes: int, gbit: float = 10) -> float:
    """Seconds of a step of AllReduce on nodes as fast as those, by direct exchange or a ring, whichever is faster."""
    job = Job(6_998_552, CRAY_BATCH / (CRAY[16] / 16), nodes, Network.ethernet(gbit), Stragglers(SPREAD), steps=120)
    return min(predict(AllReduce(topology=t), job).step_s for t in ("direct", "ring"))


def save(figure, file: pathlib.Path, dpi: int) -> None:
    """As PNG of 128 colours."""
    figure.savefig(file, dpi=dpi)
    Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)


def cray(folder: pathlib.Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 5))
    ours = [n for n in NODES if n >= 16]
    for gbit in (1, 10, 100):
        made = [plain(n, gbit) for n in ours]
        axes.plot(ours, [100 * made[0] / m for m in made], marker=".", label=f"AllReduce, {gbit} GbE (predicted)")
    axes.plot(
        ours,
        [100 * bigdl(16).step_s / bigdl(n).step_s for n in ours],
        "k--",
        label="Spark's shuffle in each step (predicted)",
    )
    axes.plot(
        list(CRAY), [100 * v / n / (CRAY[16] / 16) for n, v in CRAY.items()], "ks", label="BigDL on a Cray (published)"
    )
    axes.set(xscale="log", xlabel="nodes", ylabel="rows/s a node, % of that at 16 nodes", ylim=(0, 108))
    axes.set_xticks(ours, [str(n) for n in ours])
    axes.set_title("Inception-v1, 88 images a node and step")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    save(figure, folder / "cray.png", 80)
    print(
        "\n| nodes | BigDL, images/s | of 16 nodes' rate | Spark's shuffle, predicted | AllReduce, 10 GbE, predicted |\n"
        + "|---" * 5
        + "|"
    )
    base = bigdl(16).step_s
    for n, rate in CRAY.items():
        print(
            f"| {n} | {rate:,} | {rate / n / (CRAY[16] / 16):.1%} | {base / bigdl(n).step_s:.1%} | {plain(16) / plain(n):.1%} |"
        )


def curves(folder: pathlib.Path) -> None:
    figure, grid = plt.subplots(len(GBIT), len(MODELS), figsize=(15, 13), sharex=True, sharey=True)
    for row, gbit in zip(grid, GBIT):
        for axes, model in zip(row, MODELS):
            for i, name in enumerate(STRATEGIES):
                y = [100 * step(name, model, gbit, n).efficiency for n in NODES]
                axes.plot(NODES, y, label=name, color=plt.cm.tab20(i), linestyle="-" if i < 8 else "--")
            axes.set(xscale="log", ylim=(0, 122), title=f"{model}, {gbit} GbE")
            axes.set_xticks((2, 8, 32, 128, 1024), ("2", "8", "32", "128", "1024"))
            axes.minorticks_off()
            axes.grid(alpha=0.3)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=4, fontsize=9)
    figure.supylabel("N workers' rows a second, % of N times one worker's")
    figure.tight_layout(rect=(0.01, 0.07, 1, 1))
    save(figure, folder / "efficiency.png", 70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "docs" / "scaling")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    crossovers()
    efficiencies()
    stragglers()
    failures()
    small_batches()
    published_sync()
    cray(folder)
    curves(folder)


if __name__ == "__main__":
    main()
