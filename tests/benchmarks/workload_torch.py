"""The workloads in PyTorch, with the settings that are fastest there: channels_last, inference mode, sparse embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from workload_models import INCEPTION, ITEMS, RESNET, USERS, VOCABULARY


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.ModuleList([nn.Conv2d(3, 64, 7, 2, 3), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 192, 3, padding=1)])
        self.blocks, channels = nn.ModuleList(), 192
        for filters in INCEPTION:
            if filters is None:
                self.blocks.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            one, before_three, three, before_five, five, pooled = filters
            made = [(channels, one, 1), (channels, before_three, 1), (before_three, three, 3)]
            made += [(channels, before_five, 1), (before_five, five, 5), (channels, pooled, 1)]
            self.blocks.append(nn.ModuleList(nn.Conv2d(i, o, k, padding=k // 2) for i, o, k in made))
            channels = one + three + five + pooled
        self.head = nn.Linear(channels, 1000)

    def forward(self, x):
        relu, pool = functional.relu, functional.max_pool2d
        x = pool(relu(self.stem[0](x)), 3, 2, ceil_mode=True)
        x = pool(relu(self.stem[2](relu(self.stem[1](x)))), 3, 2, ceil_mode=True)
        for block in self.blocks:
            if isinstance(block, nn.MaxPool2d):
                x = block(x)
                continue
            a, b1, b2, c1, c2, d = block
            branches = [a(x), b2(relu(b1(x))), c2(relu(c1(x))), d(pool(x, 3, 1, 1))]
            x = torch.cat([relu(y) for y in branches], 1)
        return self.head(x.mean((2, 3)))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        sizes = [(channels, filters, 1, stride), (filters, filters, 3, 1), (filters, 4 * filters, 1, 1)]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, k // 2) for i, o, k, s in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o, eps=1.001e-5, momentum=0.01) for _, o, _, _ in sizes)
        self.short = None
        if stride != 1 or channels != 4 * filters:
            norm = nn.BatchNorm2d(4 * filters, eps=1.001e-5, momentum=0.01)
            self.short = nn.Sequential(nn.Conv2d(channels, 4 * filters, 1, stride), norm)

    def forward(self, x):
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            y = norm(conv(y))
            y = functional.relu(y) if i < 2 else y
        return functional.relu(y + (x if self.short is None else self.short(x)))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64, eps=1.001e-5, momentum=0.01)
        blocks, channels = [], 64
        for filters, count, stride in RESNET:
            for i in range(count):
                blocks.append(Bottleneck(channels, filters, stride if i == 0 else 1))
                channels = 4 * filters
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(channels, 1000)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.norm(self.conv(x))), 3, 2, 1)
        return self.head(self.blocks(x).mean((2, 3)))


class TextLstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.lstm = nn.Embedding(VOCABULARY, 128), nn.LSTM(128, 128, batch_first=True)
        self.head = nn.Linear(128, 1)

    def forward(self, ids):
        return self.head(self.lstm(self.words(ids))[0][:, -1])


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, steps, width = x.shape
        q, k, v = self.qkv(x).view(b, steps, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, steps, width))


class Transformer(nn.Module):
    def __init__(self, width: int = 256, depth: int = 4):
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, width)
        self.attend = nn.ModuleList(Attention(width, 4) for _ in range(depth))
        self.inner = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)) for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2 * depth))
        self.head = nn.Linear(width, 4)

    def forward(self, ids):
        x = self.words(ids)
        for i, (attend, inner) in enumerate(zip(self.attend, self.inner)):
            x = self.norms[2 * i](x + attend(x))
            x = self.norms[2 * i + 1](x + inner(x))
        return self.head(x.mean(1))


class NeuMF(nn.Module):
    def __init__(self, sparse: bool):
        super().__init__()
        sizes = [(USERS, 64), (ITEMS, 64), (USERS, 128), (ITEMS, 128)]
        self.tables = nn.ModuleList(nn.Embedding(n, width, sparse=sparse) for n, width in sizes)
        self.inner = nn.ModuleList([nn.Linear(256, 256), nn.Linear(256, 128), nn.Linear(128, 64)])
        self.head = nn.Linear(128, 1)

    def forward(self, user, item):
        user, item = user[:, 0], item[:, 0]
        a, b, c, d = (table(ids) for table, ids in zip(self.tables, (user, item, user, item)))
        x = torch.cat([c, d], 1)
        for layer in self.inner:
            x = functional.relu(layer(x))
        return self.head(torch.cat([a * b, x], 1))


class ConvLstm(nn.Module):
    def __init__(self, channels: int, filters: int):
        super().__init__()
        self.filters = filters
        self.of_input = nn.Conv2d(channels, 4 * filters, 3, padding=1)
        self.of_state = nn.Conv2d(filters, 4 * filters, 3, padding=1, bias=False)

    def forward(self, x):
        b, steps = x.shape[:2]
        inputs = self.of_input(x.flatten(0, 1))
        inputs = inputs.view(b, steps, *inputs.shape[1:])
        h = c = x.new_zeros(b, self.filters, *x.shape[3:])
        found = []
        for t in range(steps):
            i, f, g, o = (inputs[:, t] + self.of_state(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            found.append(h)
        return torch.stack(found, 1)


class Frames(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = ConvLstm(1, 16), ConvLstm(16, 16), nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x):
        return self.head(self.second(self.first(x))[:, -1])


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def _lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(7 * 7 * 64, 512), nn.ReLU(), nn.Linear(512, 10),
    )  # fmt: skip


FASTER_COMPILED = {
    ("mlp", "fit"), ("inception", "predict"), ("resnet", "predict"), ("transformer", "predict"), ("neumf", "predict"),
    ("convlstm", "fit"), ("convlstm", "predict"),
}  # fmt: skip
"""Where `torch.compile` was faster than eager when both were measured (`--subjects torch-eager torch-compiled`)."""


class TorchSubject:
    """A workload in PyTorch.

    Args:
        name: of the workload. mode: "fit" or "predict".
        setting: "eager", "compiled", "dense" (NeuMF with Adam for all), or "" = the faster one.
    """

    def __init__(self, name: str, mode: str, setting: str, batch: int):
        torch.manual_seed(0)
        self.name, self.mode, self.batch = name, mode, batch
        sparse = mode == "fit" and setting != "dense"
        made: dict[str, Callable[[], nn.Module]] = {
            "mlp": _mlp, "lenet": _lenet, "inception": Inception, "resnet": ResNet, "lstm": TextLstm,
            "transformer": Transformer, "neumf": lambda: NeuMF(sparse), "convlstm": Frames,
        }  # fmt: skip
        self.model = made[name]()
        if name in ("lenet", "inception", "resnet", "convlstm"):
            self.model = self.model.to(memory_format=torch.channels_last)
        tables = list(self.model.tables.parameters()) if name == "neumf" and sparse else []
        rest = [p for p in self.model.parameters() if all(p is not t for t in tables)]
        self.optimizers: list[Any] = [torch.optim.Adam(rest)]
        self.optimizers += [torch.optim.SparseAdam(tables)] if tables else []
        self.model.train(mode == "fit")
        compiled = setting == "compiled" or (setting == "" and (name, mode) in FASTER_COMPILED)
        self.call: Callable = torch.compile(self.model) if compiled else self.model

    def fit(self, x: Any, y: np.ndarray, epochs: int) -> None:
        inputs, labels = self._inputs(x), torch.from_numpy(y)
        labels = labels.long() if labels.dtype == torch.int32 else labels
        for _ in range(epochs):
            order = torch.randperm(len(labels))
            for start in range(0, len(labels), self.batch):
                rows = order[start : start + self.batch]
                loss = self._loss(self.call(*(self._placed(i[rows]) for i in inputs)), labels[rows])
                for optimizer in self.optimizers:
                    optimizer.zero_grad(set_to_none=True)
                loss.backward()
                for optimizer in self.optimizers:
                    optimizer.step()

    def predict(self, x: Any) -> np.ndarray:
        inputs, found = self._inputs(x), []
        with torch.inference_mode():
            for start in range(0, len(inputs[0]), self.batch):
                out = self.call(*(self._placed(i[start : start + self.batch]) for i in inputs))
                found.append(self._activated(out))
        return torch.cat(found).numpy()

    def _inputs(self, x: Any) -> list[torch.Tensor]:
        return [torch.from_numpy(a) for a in (x if isinstance(x, list) else [x])]

    def _placed(self, x: torch.Tensor) -> torch.Tensor:
        """Rows as the model takes them; images keep their memory, which is channels_last."""
        if self.name in ("lenet", "inception", "resnet"):
            return x.permute(0, 3, 1, 2)
        return x.permute(0, 1, 4, 2, 3) if self.name == "convlstm" else x

    def _loss(self, out: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.name in ("lstm", "neumf"):
            return functional.binary_cross_entropy_with_logits(out[:, 0], labels)
        if self.name == "convlstm":
            return functional.mse_loss(torch.sigmoid(out), labels.permute(0, 3, 1, 2))
        return functional.cross_entropy(out, labels)

    def _activated(self, out: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(out) if self.name in ("lstm", "neumf", "convlstm") else torch.softmax(out, 1)
