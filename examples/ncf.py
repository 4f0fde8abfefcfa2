"""Shows neural collaborative filtering on MovieLens-1M: which film will a user see next?

    python examples/ncf.py path/to/ncf.npz

The file holds `train` (pairs of user and item), `test` (one pair for each user, in the users' order) and `neg` (for each
user 99 items to rank it among), as in the paper's leave-one-out protocol.

Source: He et al., Neural Collaborative Filtering (2017), section 3.3 and 4.1.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import kerasoft as ks

NEGATIVES = 4  # for each pair seen


def neumf(users: int, items: int, factors: int = 16) -> ks.Model:
    """Products of factors beside a tower of dense layers, joined by one unit."""
    layers = ks.layers
    user, item = ks.Input((), dtype="int32", name="user"), ks.Input((), dtype="int32", name="item")

    def factor(count: int, width: int, ids, name: str):
        start = ks.initializers.RandomNormal(stddev=0.01)
        return layers.Embedding(count, width, embeddings_initializer=start, name=name)(ids)

    product = layers.Multiply()([factor(users, factors, user, "user_gmf"), factor(items, factors, item, "item_gmf")])
    x = layers.Concatenate()(
        [factor(users, 2 * factors, user, "user_mlp"), factor(items, 2 * factors, item, "item_mlp")]
    )
    for units in (4 * factors, 2 * factors, factors):
        x = layers.Dense(units, activation="relu")(x)
    score = layers.Dense(1, activation="sigmoid")(layers.Concatenate()([product, x]))
    return ks.Model([user, item], score)


class Pairs:
    """Pairs seen, with fresh pairs that were not seen for every epoch."""

    def __init__(self, seen: np.ndarray, users: int, items: int, seed: int):
        self.seen, self.items, self.random = seen.astype(np.int32), items, np.random.default_rng(seed)
        self.known = np.zeros((users, items), bool)
        self.known[seen[:, 0], seen[:, 1]] = True

    def epoch(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Users and items, and 1 for those seen."""
        users = np.repeat(self.seen[:, 0], NEGATIVES)
        items = self.random.integers(0, self.items, len(users), dtype=np.int32)
        while len(again := np.flatnonzero(self.known[users, items])):
            items[again] = self.random.integers(0, self.items, len(again), dtype=np.int32)
        labels = np.zeros(len(self.seen) + len(users), np.float32)
        labels[: len(self.seen)] = 1
        return [np.append(self.seen[:, 0], users), np.append(self.seen[:, 1], items)], labels


def to_rank(test: np.ndarray, negative: np.ndarray) -> list[np.ndarray]:
    """Users and items, flat: for each user first the item seen, then the others."""
    users = np.repeat(test[:, 0], 1 + negative.shape[1])
    return [users.astype(np.int32), np.concatenate([test[:, 1:], negative], axis=1).ravel().astype(np.int32)]


def hits(scores: np.ndarray, top: int = 10) -> tuple[float, float]:
    """HR and NDCG at `top` of scores (users, 1 + negatives) whose first column is the item seen; a tie counts against it.

    >>> hits(np.array([[0.9, 0.1, 0.2], [0.1, 0.1, 0.0]]), top=1)
    (0.5, 0.5)
    """
    rank = np.sum(scores[:, 1:] >= scores[:, :1], axis=1)
    found = rank < top
    return float(found.mean()), float(np.where(found, 1 / np.log2(rank + 2), 0).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="ncf.npz")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--factors", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--rows", type=int, help="use only so many of the pairs seen")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = np.load(options.data)
    train, test, negative = data["train"].astype(np.int64), data["test"].astype(np.int64), data["neg"]
    users, items = int(max(train[:, 0].max(), test[:, 0].max())) + 1, int(max(train[:, 1].max(), test[:, 1].max())) + 1
    items = max(items, int(negative.max()) + 1)
    ks.utils.set_random_seed(options.seed)
    pairs = Pairs(train[: options.rows], users, items, options.seed)
    ranked = to_rank(test, negative)
    model = neumf(users, items, options.factors)
    model.compile(ks.optimizers.Adam(options.learning_rate), "binary_crossentropy")
    best = (0.0, 0.0)
    for epoch in range(options.epochs):
        x, y = pairs.epoch()
        begin = time.perf_counter()
        history = model.fit(x, y, batch_size=options.batch_size, verbose=0)
        rate = len(y) / (time.perf_counter() - begin)
        scores = model.predict(ranked, batch_size=8192, verbose=0).reshape(len(test), -1)
        found = hits(scores)
        best = max(best, found)
        loss = history.history["loss"][-1]
        print(
            f"epoch {epoch + 1:2d}  loss {loss:.4f}  HR@10 {found[0]:.4f}  NDCG@10 {found[1]:.4f}  {rate:,.0f} examples/s",
            flush=True,
        )
    print(f"best: HR@10 {best[0]:.4f}, NDCG@10 {best[1]:.4f}")


if __name__ == "__main__":
    main()
