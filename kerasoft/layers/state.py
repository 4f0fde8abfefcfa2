"""State: what a layer holds. Variables, sublayers, metrics and seeds are found when they become attributes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import NotBuiltError
from ..tracking import tracked
from ..variables import Variable

_UNTRACKED = {
    "_trainable_variables", "_non_trainable_variables", "_layers", "_metrics", "_seed_generators", "_losses",
    "_inbound_nodes", "_outbound_nodes", "_build_shapes", "_captured", "input_spec",
    "_functional",
}  # fmt: skip
_PLAIN = {bool, int, float, str, type(None)}  # most attributes: nothing to find in them


class State:
    """Keeps variables in Keras's order: own trainable, own non-trainable, then those of sublayers."""

    _trainable_variables: list[Variable]
    _non_trainable_variables: list[Variable]
    _layers: list[Any]
    name: str
    built: bool
    _trainable: bool
    _locked = False  # True: no more state may be added

    def __init__(self) -> None:
        for name in ("_trainable_variables", "_non_trainable_variables", "_layers", "_metrics", "_seed_generators"):
            object.__setattr__(self, name, [])
        for name, value in list(self.__dict__.items()):  # set before the constructor of the base class was called
            if type(value) not in _PLAIN and name not in _UNTRACKED and name != "_captured":
                setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if type(value) not in _PLAIN and name not in _UNTRACKED and "_layers" in self.__dict__:
            value = tracked(value, self._track)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        value = self.__dict__.get(name)
        super().__delattr__(name)
        for found in (self._layers, self._trainable_variables, self._non_trainable_variables, self._metrics):
            found[:] = [x for x in found if x is not value]

    def _track(self, value: Any) -> None:
        """Remembers `value` if it is part of the state."""
        if isinstance(value, Variable):
            self._track_variable(value)
        elif isinstance(value, State):
            if value is not self and not any(x is value for x in self._layers):
                self._check_lock()
                self._layers.append(value)
        elif hasattr(value, "update_state") and hasattr(value, "result"):
            if not any(x is value for x in self._metrics):
                self._metrics.append(value)
        elif hasattr(value, "state") and hasattr(value, "next") and isinstance(value.state, Variable):
            if not any(x is value for x in self._seed_generators):
                self._seed_generators.append(value)

    def _track_variable(self, variable: Variable) -> None:
        found = self._trainable_variables if variable.trainable else self._non_trainable_variables
        if not any(v is variable for v in self._trainable_variables + self._non_trainable_variables):
            self._check_lock()
            found.append(variable)

    def _check_lock(self) -> None:
        if self._locked:
            raise ValueError(
                "You cannot add new elements of state (variables or sub-layers) to a layer that is already built. All "
                "state must be created in the `__init__()` method or in the `build()` method."
            )

    def _untrack_variable(self, variable: Variable) -> None:
        for found in (self._trainable_variables, self._non_trainable_variables):
            found[:] = [v for v in found if v is not variable]

    # --- trainable ---

    @property
    def trainable(self) -> bool:
        """Whether the weights are trained; setting it sets it in all sublayers."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for variable in self._trainable_variables:
            variable.trainable = bool(value)
        for layer in self._layers:
            layer.trainable = bool(value)

    # --- variables ---

    def _flatten_layers(self, include_self: bool = True, recursive: bool = True) -> list[Any]:
        """This layer and all below, depth first, each once; or not itself, or only those directly in it."""
        order: list[Any] = []
        stack: list[Any] = [self]
        seen: set[int] = set()
        while stack:
            layer = stack.pop()
            if id(layer) not in seen:
                seen.add(id(layer))
                order.append(layer)
                if recursive or layer is self:
                    stack.extend(reversed(layer._layers))
        return order if include_self else order[1:]

    @property
    def weights(self) -> list[Variable]:
        """Variables of this layer and its sublayers, each once, without seeds and metrics."""
        return _once([*self._own_variables, *(w for layer in self._layers for w in layer.weights)])

    @property
    def _own_variables(self) -> list[Variable]:
        return self._trainable_variables + self._non_trainable_variables

    @property
    def _stored_variables(self) -> list[Variable]:
        """Its own variables in the order of files."""
        return self._own_variables

    @property
    def trainable_weights(self) -> list[Variable]:
        return [v for v in self.weights if v.trainable] if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Variable]:
        return [v for v in self.weights if not v.trainable] if self.trainable else self.weights

    @property
    def variables(self) -> list[Variable]:
        """The weights, then the states of seed generators."""
        seeds = [g.state for layer in self._flatten_layers() for g in layer._seed_generators]
        return _once([*self.weights, *seeds])

    @property
    def trainable_variables(self) -> list[Variable]:
        return [v for v in self.variables if v.trainable] if self.trainable else []

    @property
    def non_trainable_variables(self) -> list[Variable]:
        return [v for v in self.variables if not v.trainable] if self.trainable else self.variables

    def get_weights(self) -> list[np.ndarray]:
        """The values of `weights`."""
        return [v.numpy().copy() for v in self.weights]

    def set_weights(self, weights: list) -> None:
        """Sets the values of `weights`.

        Raises:
            ValueError: another number of arrays, or another shape.
        """
        mine = self.weights
        if len(mine) != len(weights):
            raise ValueError(
                f"You called `set_weights(weights)` on layer '{self.name}' with a weight list of length {len(weights)}, "
                f"but the layer was expecting {len(mine)} weights. Give one array for each of "
                f"{[v.path for v in mine]}, as `get_weights()` does."
            )
        for variable, value in zip(mine, weights, strict=True):
            if variable.shape != np.shape(value):
                raise ValueError(
                    f"Layer {self.name} weight shape {variable.shape} is not compatible with provided weight shape "
                    f"{np.shape(value)} (weight '{variable.path}'). Give the arrays in the order of `get_weights()`."
                )
        for variable, value in zip(mine, weights, strict=True):
            variable.assign(value)

    def count_params(self) -> int:
        """How many numbers the weights hold.

        Raises:
            NotBuiltError: the layer is not built.
        """
        if not self.built:
            raise NotBuiltError(
                f"You tried to call `count_params` on layer '{self.name}', but the layer isn't built. You can build it "
                "manually via: `layer.build(input_shape)`."
            )
        return sum(v.size for v in self.weights)

    # --- files ---

    def save_own_variables(self, store: Any) -> None:
        """Puts the variables that belong to this layer itself into `store`, by index."""
        for i, v in enumerate(self._stored_variables):
            store[str(i)] = v.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Sets them from `store`.

        Raises:
            ValueError: another number of variables, or another shape.
        """
        mine = self._stored_variables
        if len(store.keys()) != len(mine):
            if not mine and not self.built:
                raise ValueError(
                    f"Layer '{self.name}' was never built and thus it doesn't have any variables. However the weights "
                    f"file lists {len(store.keys())} variables for this layer. In most cases, this error indicates "
                    "that you need to build the layer: implement `build()` to make all weights and sublayers."
                )
            raise ValueError(
                f"Layer '{self.name}' expected {len(mine)} variables, but received {len(store.keys())} variables during "
                f"loading. Expected: {[v.name for v in mine]}"
            )
        for i, v in enumerate(mine):
            v.assign(store[str(i)])


def _once(items: list) -> list:
    seen: set[int] = set()
    return [x for x in items if not (id(x) in seen or seen.add(id(x)))]  # type: ignore[func-returns-value]
