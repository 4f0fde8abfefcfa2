"""The layers' contract table as models: many rows in one functional model, so that one file holds many layers."""

import importlib.util
import pathlib
import sys

import numpy as np

from kerasoft import tree

FILE = pathlib.Path(__file__).parent / "layers" / "test_layer_contract.py"


def table():
    """The module of the contract test."""
    name = "layer_contract_table"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, FILE)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def groups(size=15, without=()):
    """The rows in lists of `size`, without the layers named in `without`."""
    rows = [row for row in table().ROWS if row.name not in without]
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def group_id(rows):
    return f"{rows[0].name}..{rows[-1].name}"


class Combined:
    """One model `k.Model` of the layers of `rows`; `k` is keras or kerasoft."""

    def __init__(self, k, rows):
        self.rows, self.xs, self.counts = rows, [], []
        inputs, outputs = [], []
        for i, row in enumerate(rows):
            xs = table().data(row)
            mine = [k.Input(x.shape[1:], dtype=x.dtype.name, name=f"r{i}_{j}") for j, x in enumerate(xs)]
            made = tree.flatten(row.make(k.layers)(*table().given(row, mine), **row.call))
            self.xs += xs
            inputs += mine
            outputs += made
            self.counts.append(len(made))
        self.model = k.Model(inputs, outputs, name="rows")

    def randomise(self, seed=3):
        rng = np.random.default_rng(seed)
        self.model.set_weights(
            [
                rng.uniform(0.5, 1.5, w.shape) if "variance" in w.path else rng.uniform(-0.6, 0.6, w.shape)
                for w in self.model.weights
            ]
        )
        return self

    def compare(self, got, want, rtol=1e-5, atol=1e-5):
        """Both are the flat outputs; names the row that differs."""
        assert len(got) == len(want) == sum(self.counts)
        names = [f"{row.name} #{i}" for i, row in enumerate(self.rows) for _ in range(self.counts[i])]
        for name, a, b in zip(names, got, want, strict=True):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol, err_msg=name)


def outputs(model, xs):
    """The flat outputs of a Keras or kerasoft model, compiled cheaply."""
    return tree.flatten(table().jitted(lambda *arrays: model(list(arrays)), *xs))
