"""How long until the first training step is done: each run in a process of its own, without and with the caches on disk.

    python tests/benchmarks/first_step.py
    python tests/benchmarks/first_step.py --models inception resnet lstm transformer --rounds 3
    python tests/benchmarks/first_step.py --models inception --profile 40

A subject imports kerasoft, makes a model, compiles it and calls `fit` on one batch. The caches are in a folder of their own, empty
for the first run ("cold"), left as they are for the others. Prints seconds: `start` from the start of the process to Python's
first line, `import` of NumPy and kerasoft with all that the model needs, `build` of the model and `compile()`, `fit` from its
call to its return (the step, the preparation before it and the weights' way back), `all` from the start of the process to the
end of `fit`; `again`, a second `fit` of one step; and the processor's seconds of the main thread during the first `fit`, which other
work on the machine changes less. Python's bytecode is kept in the same folder and made by a run that is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

_BEGIN = time.time()
HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]
COLUMNS = ("start", "import", "build", "fit", "all", "again", "fit's main thread")


def subject(name: str, launched: float, profile: int) -> None:
    """One run; prints its seconds as JSON."""
    clock = time.perf_counter
    marks = [clock()]
    import numpy as np

    import kerasoft
    import kerasoft.applications
    import kerasoft.layers
    import kerasoft.models
    import kerasoft.optimizers

    marks.append(clock())
    from workload_models import WORKLOADS

    workload = WORKLOADS.get(name, WORKLOADS["inception"])
    x, y = workload.data(workload.batch, np.random.default_rng(0))
    marks.append(clock())
    if name == "inception-v1":
        model = kerasoft.applications.InceptionV1()
        model.compile("adam", "sparse_categorical_crossentropy")
    else:
        model = workload.build(kerasoft)
    marks.append(clock())
    thread = time.thread_time()
    if profile:
        import cProfile
        import pstats

        profiler = cProfile.Profile(time.thread_time)
        profiler.runcall(model.fit, x, y, batch_size=workload.batch, verbose=0)
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(profile)
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(profile)
    else:
        model.fit(x, y, batch_size=workload.batch, verbose=0)
    marks.append(clock())
    end, thread = time.time(), time.thread_time() - thread
    model.fit(x, y, batch_size=workload.batch, verbose=0)
    marks.append(clock())
    start, data = _BEGIN - launched, marks[2] - marks[1]
    made = {"start": start, "import": marks[1] - marks[0], "build": marks[3] - marks[2], "fit": marks[4] - marks[3]}
    print(json.dumps({**made, "all": end - launched - data, "again": marks[5] - marks[4], COLUMNS[-1]: thread}))


def run(name: str, caches: str, bytecode: str, profile: int = 0) -> dict[str, float]:
    """Seconds of one subject in a process of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": caches, "PYTHONPYCACHEPREFIX": os.path.join(bytecode, "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, __file__, "--subject", name, "--launched", repr(time.time()), "--profile", str(profile)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, what: str, runs: list[dict[str, float]]) -> str:
    cells = [f"{statistics.median(r[c] for r in runs):.2f}" for c in COLUMNS]
    least, most = min(r["fit"] for r in runs), max(r["fit"] for r in runs)
    return f"| {name} | {what} | {' | '.join(cells)} | {least:.2f} to {most:.2f} | {os.getloadavg()[0]:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["inception-v1"], help="inception-v1, or names of workloads.py")
    parser.add_argument("--rounds", type=int, default=3, help="runs from the caches, of which the median is printed")
    parser.add_argument(
        "--profile", type=int, default=0, help="print so many lines of a profile of `fit` from the caches"
    )
    parser.add_argument("--caches", help="a folder that is kept; by default a temporary one")
    parser.add_argument("--subject", help=argparse.SUPPRESS)
    parser.add_argument("--launched", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.subject:
        subject(options.subject, options.launched, options.profile)
        return
    print(f"| model | caches | {' | '.join(COLUMNS)} | fit, all runs | load |\n|{'---|' * (len(COLUMNS) + 4)}")
    with tempfile.TemporaryDirectory() as temporary:
        bytecode = options.caches or temporary
        for name in options.models:
            caches = os.path.join(options.caches or temporary, name)
            if not os.path.exists(os.path.join(bytecode, "bytecode")):
                run("lenet", os.path.join(temporary, "first"), bytecode)
            there = os.path.exists(caches)
            print(row(name, "kept" if there else "cold", [run(name, caches, bytecode)]), flush=True)
            if options.profile:
                run(name, caches, bytecode, options.profile)
            elif options.rounds:
                runs = [run(name, caches, bytecode) for _ in range(options.rounds)]
                print(row(name, "from disk", runs), flush=True)


if __name__ == "__main__":
    main()
