"""Shows the classic listing end to end: text files -> token ids -> Embedding + LSTM + Dense -> fit, evaluate, predict."""

from __future__ import annotations

import argparse
import csv
import pathlib
import re

import numpy as np
from kerasoft.runtime.spark_session import session

import kerasoft as ks

WORDS, LENGTH, CLASSES = 10000, 50, 4
NAMES = ("World", "Sports", "Business", "Sci/Tech")
EXAMPLES = (  # a few invented lines, so that the example runs without data: class, title, text
    ("1", "Leaders meet for peace talks", "Ministers of both countries agreed on a ceasefire and elections next year."),
    (
        "2",
        "Late goal wins the final",
        "The striker scored in the last minute and the team lifted the cup after the match.",
    ),
    (
        "3",
        "Shares fall as oil prices rise",
        "Stocks dropped and investors sold bank shares while the company cut its profit forecast.",
    ),
    (
        "4",
        "New software for faster computers",
        "Scientists released a program that makes internet search on phones faster.",
    ),
)


def parse(line: str) -> tuple[list[str], int]:
    """``"class","title","description"`` -> (words, label 0..3)."""
    label, title, text = next(csv.reader([line]))
    return re.findall(r"[a-z0-9]+", f"{title} {text}".lower()), int(label) - 1


def encode(words: list[str], vocabulary: dict[str, int]) -> np.ndarray:
    """Token ids int32[LENGTH]: 0 pads, 1 stands for unknown words; long texts are cut at the end."""
    ids = [vocabulary.get(word, 1) for word in words[:LENGTH]]
    return np.array([0] * (LENGTH - len(ids)) + ids, np.int32)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=pathlib.Path, default=None, help='a CSV file of "class","title","description"')
    options.add_argument("--master", default="local-cluster[2,1,1024]")
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--batch-size", type=int, default=16)
    options.add_argument("--limit", type=int, default=7600, help="rows to use; 15/19 of them train (6,000 of 7,600)")
    args = options.parse_args()

    ks.utils.set_random_seed(1)
    spark = session("kerasoft text classifier", args.master)
    try:
        sc = spark.sparkContext
        if args.data is None:
            lines = sc.parallelize([",".join(f'"{part}"' for part in row) for row in EXAMPLES * 50], 4)
        else:
            lines = sc.textFile(str(args.data.resolve()), 4)
        numbered = lines.zipWithIndex().filter(lambda pair: pair[1] < args.limit).cache()
        # a fixed split: of every 19 lines, 15 train and 4 test
        train_lines = numbered.filter(lambda pair: pair[1] % 19 < 15).keys()
        test_lines = numbered.filter(lambda pair: pair[1] % 19 >= 15).keys()

        counted = (
            train_lines.flatMap(lambda line: set(parse(line)[0])).map(lambda word: (word, 1)).reduceByKey(int.__add__)
        )
        frequent = counted.takeOrdered(WORDS - 2, key=lambda pair: (-pair[1], pair[0]))
        vocabulary = sc.broadcast({word: i + 2 for i, (word, _) in enumerate(frequent)})

        def to_row(line: str) -> tuple[np.ndarray, int]:
            words, label = parse(line)
            return encode(words, vocabulary.value), label

        train, test = train_lines.map(to_row), test_lines.map(to_row)

        model = ks.Sequential(
            [
                ks.Input((LENGTH,), dtype="int32"),
                ks.layers.Embedding(WORDS, 128),
                ks.layers.LSTM(64, return_sequences=True),
                ks.layers.GlobalMaxPooling1D(),
                ks.layers.Dense(CLASSES, activation="softmax"),
            ]
        )
        model.compile(
            optimizer=ks.optimizers.Adagrad(0.1), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        model.fit(train, batch_size=args.batch_size, epochs=args.epochs)
        scores = model.evaluate(test, return_dict=True)
        print(f"test accuracy {scores['accuracy']:.4f} on {test.count()} rows")
        predictions = model.predict(test)  # a lazy RDD: computed by the next line
        for line, scores_of_line in zip(test_lines.take(4), predictions.take(4)):
            print(f"{NAMES[int(np.argmax(scores_of_line))]:<9} {line[:90]}")
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
