"""Memory and time of training steps with and without RematScope("full"), here and in Keras 3 on JAX.

    KERAS_BACKEND=jax python tests/benchmarks/rematerialisation.py [--nets mlp conv]

Each subject is a process of its own: the peak of its resident memory less what it was before the fit, the shortest of
three steps after the first, and here what the executable itself says of its temporaries.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np

NETS = {"mlp": 16384, "conv": 64}  # rows of a batch


def peak_bytes() -> int:
    """The most resident memory of this process so far."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def net(k, kind: str):
    if kind == "mlp":
        x = inputs = k.Input((512,))
        for _ in range(32):
            x = k.layers.Dense(512, "gelu")(x)
    else:
        inputs = k.Input((64, 64, 3))
        x = k.layers.Conv2D(32, 3, padding="same", use_bias=False)(inputs)
        for _ in range(12):
            y = x
            for _ in range(2):
                y = k.layers.Activation("relu")(k.layers.BatchNormalization()(y))
                y = k.layers.Conv2D(32, 3, padding="same", use_bias=False)(y)
            x = k.layers.Add()([x, k.layers.Dropout(0.1)(y)])
        x = k.layers.GlobalAveragePooling2D()(x)
    return k.Model(inputs, k.layers.Dense(10, "softmax")(x))


def subject(library: str, kind: str, mode: str) -> dict:
    k = __import__(library)
    k.utils.set_random_seed(0)
    with k.RematScope(mode if mode != "none" else None):
        model = net(k, kind)
    model.compile("adam", "sparse_categorical_crossentropy")
    rows = NETS[kind]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, *model.input_shape[1:])).astype("float32")
    y = rng.integers(0, 10, rows)
    before = peak_bytes()
    seconds = []
    for _ in range(4):
        begin = time.perf_counter()
        loss = model.fit(x, y, batch_size=rows, verbose=0, shuffle=False).history["loss"][0]
        seconds.append(time.perf_counter() - begin)
    peak = peak_bytes()
    found = {"peak MB": (peak - before) / 1e6, "step s": min(seconds[1:]), "loss": loss}
    if library == "kerasoft":
        part = model.explain(x[:2], y[:2], batch_size=rows, measure=False).parts[0]
        found |= {"temporaries MB": part.memory["temporaries"] / 1e6, "GFLOPs": part.flops / 1e9}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--subject", nargs=3)
    given = parser.parse_args()
    if given.subject:
        print(json.dumps(subject(*given.subject)))
        return
    for kind in given.nets:
        for library in ("kerasoft", "keras"):
            for mode in ("none", "full"):
                done = subprocess.run([sys.executable, __file__, "--subject", library, kind, mode], capture_output=True, text=True, check=False)  # fmt: skip
                if done.returncode:
                    print(f"{kind:<5} {library:<9} {mode:<5} {done.stderr.splitlines()[-1][:120]}", flush=True)
                    continue
                found = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"{kind:<5} {library:<9} {mode:<5}", ", ".join(f"{n} {v:.6g}" for n, v in found.items()), flush=True
                )


if __name__ == "__main__":
    main()
