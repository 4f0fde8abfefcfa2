"""One subject of `workloads.py` in a process of its own: reads seconds from stdin, line by line, and answers in JSON.

The first line it writes is the seconds of the first step (trace and compilation included) and those of the import.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import numpy as np
from workload_models import WORKLOADS, Workload


class KerasSubject:
    """Keras or kerasoft, which have the same interface."""

    def __init__(self, library: Any, workload: Workload):
        library.utils.set_random_seed(0)
        self.batch, self.model = workload.batch, workload.build(library)

    def fit(self, x: Any, y: np.ndarray, epochs: int) -> None:
        self.model.fit(x, y, batch_size=self.batch, epochs=epochs, verbose=0)

    def predict(self, x: Any) -> np.ndarray:
        return self.model.predict(x, batch_size=self.batch, verbose=0)


def subject_of(name: str, workload: str, mode: str) -> Any:
    """The subject `name`: kerasoft, keras, torch or torch-<setting>."""
    if name == "kerasoft":
        import kerasoft

        return KerasSubject(kerasoft, WORKLOADS[workload])
    if name == "keras":
        os.environ["KERAS_BACKEND"] = "jax"
        import keras

        return KerasSubject(keras, WORKLOADS[workload])
    from workload_torch import TorchSubject

    return TorchSubject(workload, mode, name.partition("-")[2], WORKLOADS[workload].batch)


class Run:
    """Rounds of one mode of one subject."""

    def __init__(self, name: str, workload_name: str, mode: str):
        workload = WORKLOADS[workload_name]
        self.mode, self.rows = mode, workload.rows(mode)
        self.x, self.y = workload.data(self.rows, np.random.default_rng(0))
        begin = time.perf_counter()
        self.subject = subject_of(name, workload_name, mode)
        made = time.perf_counter()
        first = workload.batch
        x = [a[:first] for a in self.x] if isinstance(self.x, list) else self.x[:first]
        self._call(x, self.y[:first], 1)
        end = time.perf_counter()
        self.first = {"made_s": made - begin, "first_s": end - made}
        self._call(self.x, self.y, 1)
        self._epoch_s = time.perf_counter() - end

    def round(self, seconds: float) -> dict[str, float]:
        """Trains or predicts for about so long."""
        examples, begin = 0, time.perf_counter()
        while (spent := time.perf_counter() - begin) < 0.9 * seconds:
            epochs = max(1, int((seconds - spent) / self._epoch_s)) if self.mode == "fit" else 1
            self._call(self.x, self.y, epochs)
            examples += epochs * self.rows
            self._epoch_s = min(self._epoch_s, (time.perf_counter() - begin - spent) / epochs)
        return {"examples": examples, "seconds": time.perf_counter() - begin}

    def _call(self, x: Any, y: np.ndarray, epochs: int) -> None:
        if self.mode == "fit":
            self.subject.fit(x, y, epochs)
        else:
            self.subject.predict(x)


def main() -> None:
    run = Run(*sys.argv[1:4])
    answers = os.fdopen(int(sys.argv[4]), "w")
    print(json.dumps(run.first), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run.round(float(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
