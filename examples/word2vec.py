"""Shows word vectors by skip-grams with negative sampling, trained asynchronously with functions of one's own (DeepDist's way).

The text is Python's own documentation: the language reference that `help()` reads and the docstrings of the standard library.

    python examples/word2vec.py            # Spark on this machine
    spark-submit examples/word2vec.py

Source: T. Mikolov et al., Distributed Representations of Words and Phrases and their Compositionality (2013).
"""

import argparse
import ast
import collections
import pathlib
import pydoc_data.topics
import re
import sysconfig

import numpy as np
from kerasoft.runtime import ParameterContext

WINDOW, NEGATIVES, DIMENSIONS, RATE = 5, 10, 48, 0.2


def sentences(files=400):
    """Lists of words."""
    texts = list(pydoc_data.topics.topics.values())
    for path in sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:files]:
        for node in ast.walk(ast.parse(path.read_text(errors="ignore"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                texts.append(ast.get_docstring(node) or "")
    for text in texts:
        for sentence in re.split(r"[.:;]\s|\n\s*\n", text.lower()):
            words = re.findall(r"[a-z]+", sentence)
            if len(words) > 2:
                yield words


def vocabulary(lines, least=15):
    """Words that come at least `least` times, the most frequent first, and how often they come."""
    counts = collections.Counter(word for line in lines for word in line)
    return [(word, n) for word, n in counts.most_common() if n >= least]


def corpus(words, seed=0):
    """Sentences as arrays of word numbers; frequent words are left out now and then."""
    number = {word: i for i, (word, _) in enumerate(words)}
    share = np.array([n for _, n in words]) / sum(n for _, n in words)
    keep = np.minimum(1, np.sqrt(5e-4 / share) + 5e-4 / share)
    rng = np.random.default_rng(seed)
    for line in sentences():
        ids = np.array([number[w] for w in line if w in number], np.int32)
        ids = ids[rng.random(len(ids)) < keep[ids]]
        if len(ids) > 1:
            yield ids


def pairs(lines):
    """(centre, context) of all words that stand at most `WINDOW` apart."""
    found = [np.stack([line[:-d], line[d:]], 1) for line in lines for d in range(1, WINDOW + 1) if len(line) > d]
    both = np.concatenate(found)
    return np.concatenate([both, both[:, ::-1]])


def gradient(model, lines):
    """On a worker: the rows that these sentences touch, and their gradients."""
    centre, context = pairs(lines).T
    rng = np.random.default_rng(int(centre.sum()) + len(centre))
    wrong = rng.choice(len(model["noise"]), (len(centre), NEGATIVES), p=model["noise"])
    targets = np.concatenate([context[:, None], wrong], 1)
    v, u = model["in"][centre], model["out"][targets]
    error = 1 / (1 + np.exp(-np.einsum("pd,pkd->pk", v, u)))
    error[:, 0] -= 1
    update = {}
    for name, index, slope in (
        ("in", centre, np.einsum("pk,pkd->pd", error, u)),
        ("out", targets.ravel(), (error[:, :, None] * v[:, None]).reshape(-1, v.shape[1])),
    ):
        rows, place = np.unique(index, return_inverse=True)
        total = np.zeros((len(rows), v.shape[1]), np.float32)
        np.add.at(total, place.ravel(), slope.astype(np.float32))
        update[name] = {"rows": rows, "slope": total}
    return update


def descent(model, update):
    """At the server: Adagrad on the rows touched; its sums begin large, for the first updates all miss one another."""
    for name, part in update.items():
        rows, slope = part["rows"], part["slope"]
        model[f"{name} squares"][rows] += slope * slope
        model[name][rows] -= RATE * slope / np.sqrt(model[f"{name} squares"][rows] + 1e-6)


def fresh(words, seed=0):
    """A model that knows nothing."""
    rng = np.random.default_rng(seed)
    shape = len(words), DIMENSIONS
    noise = np.array([n for _, n in words], np.float64) ** 0.75
    model = {"in": rng.uniform(-0.5, 0.5, shape).astype("float32") / DIMENSIONS, "out": np.zeros(shape, np.float32)}
    model |= {f"{name} squares": np.full(shape, 10, np.float32) for name in ("in", "out")}
    return model | {"noise": noise / noise.sum()}


def neighbours(model, words, word, count=6):
    """The words whose vectors point most nearly the same way."""
    names = [w for w, _ in words]
    vectors = model["in"] - model["in"].mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = np.argsort(-vectors @ vectors[names.index(word)])
    return [names[i] for i in near[1 : count + 1]]


def main(context, epochs=3, partitions=4):
    """Trains on a SparkContext; the model and its words."""
    words = vocabulary(sentences())
    rdd = context.parallelize(list(corpus(words)), partitions).cache()
    with ParameterContext(fresh(words)) as parameters:
        parameters.train(rdd, gradient, descent, epochs=epochs, batch_size=50)
        print(parameters.counts)
        return parameters.model, words


if __name__ == "__main__":
    from pyspark import SparkContext

    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    spark = SparkContext.getOrCreate()
    try:
        trained, known = main(spark, arguments.epochs)
        for word in ("float", "file", "error", "thread", "first", "list"):
            print(f"{word:>8}: {', '.join(neighbours(trained, known, word))}")
    finally:
        spark.stop()
