"""The fault matrix: every case of `cases.py` on a standalone cluster of namespaces, or on loopback where there are none.

python tests/faults/matrix.py [--only PATTERN] [--list] [--loopback] [--write docs/faults.md]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults.cases import CASES, SAME, WAYS, Case  # noqa: E402

QUICK = {
    "spark.python.daemon.module": "tests.faults.daemon",
    "spark.network.timeout": "15s",  # a lost executor is noticed sooner
    "spark.network.timeoutInterval": "5s",
    "spark.executor.heartbeatInterval": "3s",
}


@contextlib.contextmanager
def runner(folder: pathlib.Path, loopback: bool = False) -> Iterator[tuple[Any, str]]:
    """A `Runner` on a cluster of its own, and why it has no namespaces, or ""."""
    from tests.conftest import loopback_cluster
    from tests.faults.hosts import hosts, why_not
    from tests.faults.runner import Runner

    why = "loopback was asked for" if loopback else why_not()
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(loopback_cluster(folder) if why else hosts(folder))
        session = cluster.session("faults", **QUICK)
        stack.callback(session.stop)
        yield Runner(session, cluster, folder), why


RANDOM = {
    "kill": ("load", "compile", "rendezvous", "compute", "reduce-scatter", "all-gather", "checkpoint", "validation"),
    "freeze": ("rendezvous", "compute", "reduce-scatter", "all-gather", "checkpoint", "validation"),
    "kill executor": ("compute", "all-gather", "validation"),
    "half-open": ("compute", "reduce-scatter", "all-gather"),
    "half-open to driver": ("compute", "all-gather", "validation"),
    "slow": ("rendezvous", "compute", "all-gather"),
}
OFTEN = {"kill": 6, "freeze": 2, "kill executor": 1, "half-open": 2, "half-open to driver": 1, "slow": 2}


def random_case(generator: random.Random) -> Case:
    """A group of ranks of some strategy, and a fault at a random moment of a random rank."""
    way = generator.choice([name for name, way in WAYS.items() if not way.stateless])
    how = generator.choices(list(OFTEN), list(OFTEN.values()))[0]
    ranks = WAYS[way].workers + (1 if way.startswith("ParameterServer") else 0)
    return Case(
        "worker", generator.choice(RANDOM[how]), how, way, rank=generator.randrange(ranks), seconds=0.2,
        epoch=generator.randrange(3), step=generator.randrange(5),
    )  # fmt: skip


def soak(runner: Any, groups: int, generator: random.Random) -> Iterator[Any]:
    """Outcomes of so many random cases."""
    for _ in range(groups):
        yield runner.run(random_case(generator))


def page(found: dict[str, dict], where: str) -> str:
    """The table as a page of the docs; `found`: results by the cases' names."""
    cases = [c for c in CASES if str(c) in found]
    right = sum(found[str(c)]["right"] for c in cases)
    minutes = sum(found[str(c)]["seconds"] for c in cases) / 60
    lines = [
        "# Faults",
        "",
        "What comes of it when something breaks in the middle of a fit, by strategy. Made by `python tests/faults/matrix.py --write "
        "docs/faults.md`; by what means: [0019](design/0019-faults.md).",
        "",
        f"{len(cases)} cases, {right} as expected, no hang, {minutes:.0f} minutes of cases. {where}",
        "",
        '"same" is the result of the undisturbed run: the same bits; for `DriverReduce` and the broadcast store the same numbers to '
        "1e-5; for `Downpour` and `StaleSynchronous(2)` a loss within 15 % of the undisturbed one, and half of the first epoch's. And every "
        "row once an epoch, every step told of once. Otherwise the error that ends the fit. Seconds are those of the whole fit, 3 to 5 undisturbed; "
        "`timeout_s` was 5. The last column is what the user reads, its numbers and names left out.",
        "",
    ]
    if missing := [str(c) for c in CASES if str(c) not in found]:
        lines += [f"Not run yet: {'; '.join(missing)}.", ""]
    for way in WAYS:
        rows = [c for c in cases if c.way == way]
        if rows:
            lines += [f"## {way}", "", "| who | when | how | outcome | s | says |", "|---|---|---|---|---|---|"]
            for case in rows:
                r = found[str(case)]
                how = case.how + (", in every attempt" if case.again else "")
                who = case.who if case.who in ("driver", "link") or case.rank == 1 else f"{case.who} (rank {case.rank})"
                what = r["what"] if r["right"] else f"{r['what']}: WRONG"
                said = plain(r["said"])
                lines.append(f"| {who} | {case.when} | {how} | {what} | {r['seconds']:.0f} | {said} |")
            lines.append("")
    return "\n".join(lines)


def plain(text: str) -> str:
    """A message without what differs from run to run."""
    text = text.split("\n")[0].replace("|", "/")
    text = re.sub(r" \(host [^)]*\)", "", text)
    text = re.sub(r"(file:)?/+tmp/[^ :,]*", "…", text)
    return text if len(text) <= 150 else text[:147] + "..."


def keep(path: pathlib.Path, outcome: Any) -> None:
    """Adds an outcome to the file of results; a later one of the same case counts."""
    fields = {name: getattr(outcome, name) for name in ("what", "right", "why", "said", "seconds")}
    with open(path, "a") as file:
        file.write(json.dumps({"case": str(outcome.case), **fields}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a pattern in the cases' names")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--loopback", action="store_true", help="no namespaces")
    parser.add_argument(
        "--results", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "kerasoft-faults.jsonl"
    )
    parser.add_argument("--write", type=pathlib.Path)
    parser.add_argument("--random", type=int, default=0, metavar="GROUPS", help="random faults instead of the table")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chosen: list[Case] = [c for c in CASES if re.search(options.only, str(c))]
    if options.random:
        generator = random.Random(options.seed)
        chosen = [random_case(generator) for _ in range(options.random)]
    if options.list:
        print("\n".join(map(str, chosen)))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # namespaces and processes go away all the same
    began = time.monotonic()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="kerasoft-faults-") as scratch:
        with runner(pathlib.Path(scratch), options.loopback) as (run, why):
            print(f"{len(chosen)} cases on {'loopback: ' + why if why else 'network namespaces'}", flush=True)
            for case in chosen:
                if case.hosts and why:
                    print(f"skip  {case}: {why}", flush=True)
                    continue
                outcome = run.run(case)
                outcomes.append(outcome)
                if not options.random:
                    keep(options.results, outcome)
                mark = "ok   " if outcome.right else "WRONG"
                print(f"{mark} {outcome.seconds:6.1f} s  {case}: {outcome.what}; {outcome.said[:160]}", flush=True)
                if not outcome.right:
                    print(f"      {outcome.why}", flush=True)
                    hang = sorted(pathlib.Path(scratch).glob("hang-*"))
                    if outcome.what == "Hang":
                        print(hang[-1].read_text(), flush=True)
    seconds = time.monotonic() - began
    wrong = [o for o in outcomes if not o.right]
    same = sum(o.what == SAME for o in outcomes)
    print(f"{len(outcomes)} cases, {len(wrong)} wrong, {same} with the undisturbed result, {seconds:.0f} s")
    if options.write:
        where = "Everything on loopback." if why else (
            "Hosts were two network namespaces with a /dev/shm, a disk and a name each, joined by links of 1 Gbit/s; each had two "
            "executors of one core."
        )  # fmt: skip
        lines = [json.loads(line) for line in options.results.read_text().splitlines()]
        options.write.write_text(page({line["case"]: line for line in lines}, where))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
