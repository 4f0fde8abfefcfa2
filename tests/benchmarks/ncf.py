"""NeuMF on MovieLens-1M: kerasoft (examples/ncf.py) and PyTorch on the same pairs, in turns; quality and examples a second.

    python tests/benchmarks/ncf.py path/to/ncf.npz

Both train on the same negatives in the same epoch, batch 2048, Adam; the model, starting values and ranking are alike.
PyTorch runs eagerly with dense Adam, the quicker of its optimizers for tables so small.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))

import ncf
import numpy as np
import torch
from torch import nn


class Torch(nn.Module):
    """examples/ncf.py's model."""

    def __init__(self, users: int, items: int, factors: int):
        super().__init__()
        sizes = ((users, factors), (items, factors), (users, 2 * factors), (items, 2 * factors))
        self.tables = nn.ModuleList(nn.Embedding(*size) for size in sizes)
        widths = (4 * factors, 4 * factors, 2 * factors, factors)
        layers: list[Any] = []
        for a, b in zip(widths, widths[1:]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.tower, self.last = nn.Sequential(*layers), nn.Linear(2 * factors, 1)
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.01)
        for layer in (*self.tower, self.last):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.optimizer = torch.optim.Adam(self.parameters(), 0.001, foreach=True)

    def forward(self, user: Any, item: Any) -> Any:
        a, b, c, d = (table(ids) for table, ids in zip(self.tables, (user, item, user, item)))
        return self.last(torch.cat([a * b, self.tower(torch.cat([c, d], 1))], 1))[:, 0]

    def fit_epoch(self, x: list[np.ndarray], y: np.ndarray, batch: int) -> None:
        users, items, labels = (torch.from_numpy(a) for a in (*x, y))
        for rows in torch.randperm(len(y)).split(batch):
            loss = nn.functional.binary_cross_entropy_with_logits(self(users[rows], items[rows]), labels[rows])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()

    def scores(self, x: list[np.ndarray]) -> np.ndarray:
        users, items = (torch.from_numpy(a).split(8192) for a in x)
        with torch.inference_mode():
            return torch.cat([self(u, i) for u, i in zip(users, items)]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--factors", type=int, default=16)
    options = parser.parse_args()
    data = np.load(options.data)
    train, test, negative = data["train"].astype(np.int64), data["test"].astype(np.int64), data["neg"]
    users, items = int(train[:, 0].max()) + 1, int(max(train[:, 1].max(), test[:, 1].max(), negative.max())) + 1
    pairs, ranked = ncf.Pairs(train, users, items, 0), ncf.to_rank(test, negative)
    ncf.ks.utils.set_random_seed(0)
    torch.manual_seed(0)
    ours, theirs = ncf.neumf(users, items, options.factors), Torch(users, items, options.factors)
    ours.compile(ncf.ks.optimizers.Adam(0.001), "binary_crossentropy")
    best: dict[str, float] = {"kerasoft": 0.0, "torch": 0.0}
    for epoch in range(options.epochs):
        x, y = pairs.epoch()
        line = f"epoch {epoch + 1:2d}"
        for name in best:
            begin = time.perf_counter()
            if name == "kerasoft":
                ours.fit(x, y, batch_size=2048, verbose=0)
            else:
                theirs.fit_epoch(x, y, 2048)
            rate = len(y) / (time.perf_counter() - begin)
            best[name] = max(best[name], rate)
            scores = ours.predict(ranked, batch_size=8192, verbose=0) if name == "kerasoft" else theirs.scores(ranked)
            hr, ndcg = ncf.hits(scores.reshape(len(test), -1))
            line += f"   {name}: HR@10 {hr:.4f}, NDCG@10 {ndcg:.4f}, {rate:,.0f} examples/s"
        print(line, flush=True)
    print(
        f"best rates: kerasoft {best['kerasoft']:,.0f}, torch {best['torch']:,.0f}: {best['kerasoft'] / best['torch']:.2f}"
    )


if __name__ == "__main__":
    main()
