"""Weights: between the model's variables and a step's flat vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..variables import frozen


class WeightStore:
    """Reads and writes the variables of a traced model, and notices when somebody else has set them.

    Args:
        traced: a `Traced`; its layout names the variables.
    """

    def __init__(self, traced: Any):
        self.layout = traced.source.layout
        self.variables: dict[str, Any] = traced.variables
        train = traced.source.before("train")
        self._changing = {e.name for e in self.layout.params}
        if train is not None:
            self._changing |= {n.removeprefix("state/") for n in train.output_names if n.startswith("state/")}
        self._written: dict[str, Any] = {}
        self._params: np.ndarray | None = None  # the vector that the variables were cut out of

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """params float32[P] and state float32[S] of the variables as they are; not to be written to."""
        if self._params is not None and not self.changed():
            params = self._params
        else:
            params, self._params = self._packed("params"), None
        self._remember()
        return params, self._packed("states")

    def write(self, params: np.ndarray, state: np.ndarray) -> None:
        """Sets the variables that training changes. They are cut out of `params` without a copy, so it becomes read-only."""
        params = frozen(params)
        for part, vector in (("params", params), ("states", frozen(state))):
            for name, value in self.layout.unpack(part, vector).items():
                if name in self._changing:
                    self.variables[name].adopt(value)
        self._remember()
        whole = all(self.variables[e.name].numpy().base is params for e in self.layout.params)
        self._params = params if whole else None

    def changed(self) -> list[str]:
        """Names of the variables that were set since the last `read` or `write`."""
        return [name for name, v in self.variables.items() if self._written.get(name) is not v.numpy()]

    def merged(self, params: np.ndarray, state: np.ndarray, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """`params` and `state` with the named variables as they are now."""
        parts = []
        for part, vector in (("params", params), ("states", state)):
            values = self.layout.unpack(part, vector)
            now = {name: np.asarray(self.variables[name].numpy(), np.float32) for name in names if name in values}
            parts.append(self.layout.pack(part, {**values, **now}))
        return parts[0], parts[1]

    def _packed(self, part: str) -> np.ndarray:
        entries = getattr(self.layout, part)
        return self.layout.pack(part, {e.name: np.asarray(self.variables[e.name].numpy(), np.float32) for e in entries})

    def _remember(self) -> None:
        self._written = {name: v.numpy() for name, v in self.variables.items()}
