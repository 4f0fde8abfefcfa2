"""Program: a traced model, what was compiled of it, and its weights on the device."""

from __future__ import annotations

from typing import Any

from .. import tree


class Program:
    """A traced model with its compiled steps and the weights that it last had on the device.

    Attributes:
        traced: a `Traced`.
        source: its `StepSource`.
        store: its variables.
        exports: `StepProgram`s by their row counts.
    """

    def __init__(self, traced: Any):
        from .weights import WeightStore

        self.traced = traced
        self.source = traced.source
        self.store = WeightStore(traced)
        self.exports: dict[Any, Any] = {}
        self._step: Any = None
        self._device: tuple[list, Any, Any] | None = None

    @property
    def step(self) -> Any:
        """Its `LocalStep`."""
        if self._step is None:
            self._step = self.source.local()
        return self._step

    def device_weights(self) -> tuple[Any, Any]:
        """params and state on the device, read again only when a variable was set."""
        from ..runtime.local import on_device

        values = [v.numpy() for v in self.traced.variables.values()]
        if self._device is None or any(a is not b for a, b in zip(values, self._device[0], strict=True)):
            params, state = self.store.read()
            self._device = (values, self.step.weights(params), on_device(state))
        return self._device[1], self._device[2]

    def restore(self, leaves: list) -> Any:
        """The outputs' structure with these leaves."""
        return tree.pack_as(self.traced.outputs, leaves)
