"""Writes `keras_models.json`: what Keras' application models look like, so that tests need not build all of them.

python tests/applications/record_keras_models.py
"""

import hashlib
import json
import os
import pathlib

FILE = pathlib.Path(__file__).parent / "keras_models.json"


def digest(model) -> dict:
    """Numbers and checksums that two equal models share."""
    layers = "\n".join(f"{type(layer).__name__} {layer.name}" for layer in model.layers)
    weights = "\n".join(f"{tuple(v.shape)} {v.dtype} {v.trainable}" for v in model.weights)
    return {
        "parameters": int(model.count_params()),
        "output_shape": list(model.output_shape),
        "layers": hashlib.sha256(layers.encode()).hexdigest()[:16],
        "weights": hashlib.sha256(weights.encode()).hexdigest()[:16],
    }


def main() -> None:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    recorded = {}
    for name in sorted(n for n in dir(keras.applications) if n[0].isupper()):
        keras.utils.clear_session(free_memory=False)
        with keras.StatelessScope(initialize_variables=False):
            recorded[name] = digest(getattr(keras.applications, name)(weights=None))
        print(name, recorded[name], flush=True)
    FILE.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()
