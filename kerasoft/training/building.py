"""Building: a model that is not built yet gets its weights from the shapes of the arrays that it is given.

And what can be done while it is traced: what the disk may hold of its step is read, first weights are drawn.
"""

from __future__ import annotations

import threading
from typing import Any

from .. import tree
from ..tensors import KerasTensor


def build(model: Any, signature: Any) -> Any:
    """The symbolic inputs of such arrays; builds the model by calling it on them if a layer is not built."""
    x = symbolic(signature.x)
    if not all(layer.built for layer in model._flatten_layers()):
        model.compute_output_spec(x)
    return x


def read_ahead(model: Any, signature: Any, batch_size: int) -> Any:
    """Begins to read what the last training of such a model ran; `finish` the `ReadAhead` when it has run."""
    from ..compiler.ahead import ReadAhead

    weights = [(v.path, v.shape, v.dtype, v.trainable) for v in model.weights]
    return ReadAhead(repr((type(model).__name__, type(model.optimizer).__name__, signature, batch_size, weights)))


class DrawAhead:
    """First values of a model's weights, drawn on a thread; `settle` gives them to those that still wait."""

    def __init__(self, model: Any):
        self._variables = [v for v in model.weights if v.waits]
        self._arrays: list[Any] = []
        self._thread = threading.Thread(target=self._draw, name="kerasoft-draw")
        self._thread.start()

    def _draw(self) -> None:
        try:
            self._arrays += map(lambda v: v.drawn(), self._variables)
        except Exception:  # noqa: BLE001 (whoever reads that weight draws it, and hears of it)
            return

    def settle(self) -> None:
        self._thread.join()
        for variable, array in zip(self._variables, self._arrays, strict=False):
            if variable.waits:
                variable.adopt(array)


def symbolic(structure: Any) -> Any:
    """KerasTensors for the leaves of a signature."""

    def tensor(leaf: Any) -> Any:
        return None if leaf is None else KerasTensor(leaf.known_shape, *_kind(leaf))

    return None if structure is None else tree.map_structure(tensor, structure)


def _kind(leaf: Any) -> tuple[str, bool]:
    """dtype, and whether the rows are sparse."""
    return (leaf.dtype, False) if leaf.columns is None else ("float32", True)
