"""Shows the whole road: digits as an RDD, a CNN on two executor processes, curves, evaluation, prediction, saving."""

from __future__ import annotations

import argparse
import pathlib

import numpy as np
from kerasoft.runtime.spark_session import session

import kerasoft as ks


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 handwritten 8x8 digits that scikit-learn carries: float32[n, 8, 8, 1] in 0..1 and labels 0..9."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images[..., None] / 16).astype("float32"), data.target


def build() -> ks.Model:
    """A small CNN."""
    return ks.Sequential(
        [
            ks.Input((8, 8, 1)),
            ks.layers.Conv2D(32, 3, padding="same", activation="relu"),
            ks.layers.Conv2D(32, 3, padding="same"),
            ks.layers.BatchNormalization(momentum=0.9),
            ks.layers.Activation("relu"),
            ks.layers.MaxPooling2D(),
            ks.layers.Conv2D(64, 3, padding="same", activation="relu"),
            ks.layers.MaxPooling2D(),
            ks.layers.Flatten(),
            ks.layers.Dropout(0.25),
            ks.layers.Dense(10, activation="softmax"),
        ]
    )


def draw(history: dict[str, list[float]], file: pathlib.Path) -> None:
    """The training curves as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, name in zip(axes, ("loss", "accuracy")):
        epochs = range(1, len(history[name]) + 1)
        axis.plot(epochs, history[name], marker="o", label="training")
        axis.plot(epochs, history[f"val_{name}"], marker="o", label="validation")
        axis.set_xlabel("epoch")
        axis.set_title(name)
        axis.legend()
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--master", default="local-cluster[2,1,1024]", help="two executor processes by default")
    options.add_argument("--epochs", type=int, default=12)
    options.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
    args = options.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    ks.utils.set_random_seed(7)
    x, y = digits()
    order = np.random.default_rng(0).permutation(len(x))
    rows = [(x[i], int(y[i])) for i in order]

    spark = session("kerasoft digits", args.master)
    try:
        sc = spark.sparkContext
        train, validation, test = (sc.parallelize(part, 4) for part in (rows[:1257], rows[1257:1437], rows[1437:]))
        model = build()
        model.compile(optimizer=ks.optimizers.Adam(2e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        model.summary()
        fitted = model.fit(
            train,
            batch_size=64,
            epochs=args.epochs,
            validation_data=validation,
            callbacks=[ks.callbacks.TensorBoard(str(args.out / "logs"))],
        )
        print(model.last_fit_profile)
        scores = model.evaluate(test, return_dict=True)
        predictions = model.predict(test)  # lazy: nothing has run yet
        print("labels     ", [label for _, label in test.take(10)])
        print("predictions", [int(np.argmax(p)) for p in predictions.take(10)])
    finally:
        spark.stop()

    model.save(args.out / "digits.keras")
    draw(fitted.history, args.out / "curves.png")
    print(f"held-out accuracy {scores['accuracy']:.4f}")
    print(f"saved {args.out / 'digits.keras'}, curves in {args.out / 'curves.png'}")
    print(f"TensorBoard: tensorboard --logdir {args.out / 'logs'}")


if __name__ == "__main__":
    main()
