"""MultiOptimizer: different optimizers for different weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import MutableMapping

import numpy as np

from .. import ops
from . import schedules
from .base import Optimizer
from .loss_scale import LossScaleOptimizer
from .step import Moment, State, flat_step, joined, places_of, segment_of
from .value_scope import ValueScope


class OptimizerMap(MutableMapping):
    """Optimizers by the paths of variables: exact paths or regular expressions that match the whole path.

    Args:
        default_optimizer: for variables that no key matches.
        optimizer_map: dict of optimizers by path or pattern.

    Raises:
        TypeError: no optimizer, or no dict.

    >>> import kerasoft as ks
    >>> found = ks.optimizers.OptimizerMap(ks.optimizers.SGD(), {"encoder/.*": ks.optimizers.Adam()})
    >>> type(found["encoder/dense/kernel"]).__name__, type(found["decoder/kernel"]).__name__
    ('Adam', 'SGD')
    """

    def __init__(self, default_optimizer, optimizer_map=None):
        if not isinstance(default_optimizer, Optimizer):
            raise TypeError(f"default_optimizer must be a Keras Optimizer instance. Received: {default_optimizer}")
        if optimizer_map is not None and not isinstance(optimizer_map, dict):
            raise TypeError(f"optimizer_map must be a dictionary. Received: {optimizer_map}")
        self._default_optimizer = default_optimizer
        self._optimizer_map = optimizer_map or {}

    @property
    def default_optimizer(self):
        return self._default_optimizer

    def __getitem__(self, key):
        if key in self._optimizer_map:
            return self._optimizer_map[key]
        matching = [pattern for pattern in self._optimizer_map if re.fullmatch(pattern, key)]
        if len(matching) > 1:
            raise ValueError(f"Multiple optimizers assigned to variable {key}.")
        return self._optimizer_map[matching[0]] if matching else self._default_optimizer

    def __setitem__(self, key, optimizer):
        if key in self._optimizer_map:
            raise ValueError(
                f"'{key}' already exists in the OptimizerMap with value {self._optimizer_map[key]}. Please make sure to "
                "not use duplicated keys."
            )
        if not isinstance(key, str):
            raise ValueError(f"key must be a string. Received: {key}")
        if not isinstance(optimizer, Optimizer):
            raise ValueError(f"optimizer must be a Keras Optimizer instance. Received: {optimizer}")
        if isinstance(optimizer, (LossScaleOptimizer, MultiOptimizer)):
            raise ValueError(f"optimizer cannot be {type(optimizer).__name__}.")
        self._optimizer_map[key] = optimizer

    def __delitem__(self, key):
        del self._optimizer_map[key]

    def __len__(self):
        return len(self._optimizer_map)

    def __iter__(self):
        return iter(self._optimizer_map)

    def __call__(self, variable):
        return self[variable.path]

    def get_config(self) -> dict:
        from ..saving.serialization import serialize_keras_object

        return {
            "default_optimizer": serialize_keras_object(self._default_optimizer),
            "optimizer_map": serialize_keras_object(self._optimizer_map),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        from ..saving.serialization import deserialize_keras_object

        read = (deserialize_keras_object(config[key], custom_objects) for key in ("default_optimizer", "optimizer_map"))
        return cls(*read)


class MultiOptimizer(Optimizer):
    """Hands each weight to an optimizer of its own.

    Args:
        optimizer_map: an `OptimizerMap`, or a function of a variable that gives its optimizer.
        loss_scale_factor: replaces that of the inner optimizers.

    It has no learning rate of its own; see `optimizers` for the inner ones.
    """

    whole_vectors = True

    def __init__(self, optimizer_map, loss_scale_factor=None, name=None):
        super().__init__(learning_rate=0.0, name=name)
        self._optimizer_map = optimizer_map
        self._inner: list[Optimizer] = []
        self._var_to_optimizer_idx: dict[int, int] = {}
        for optimizer in (
            *getattr(optimizer_map, "values", tuple)(),
            getattr(optimizer_map, "default_optimizer", None),
        ):
            if optimizer is not None and optimizer not in self._inner:
                self._inner.append(optimizer)
        self.loss_scale_factor = loss_scale_factor

    @property
    def loss_scale_factor(self):
        return self.__dict__.get("_scale_factor")

    @loss_scale_factor.setter
    def loss_scale_factor(self, value):
        self.__dict__["_scale_factor"] = value
        for optimizer in self.__dict__.get("_inner", ()):
            optimizer.loss_scale_factor = value

    def build(self, variables):
        if self.built:
            return
        variables = list(variables)
        for variable in variables:
            optimizer = self._optimizer_map(variable)
            if not isinstance(optimizer, Optimizer):
                raise ValueError(f"Optimizer for variable {variable} is not an Optimizer instance.")
            if isinstance(optimizer, (LossScaleOptimizer, MultiOptimizer)):
                raise ValueError(f"{type(optimizer).__name__} cannot be used inside an MultiOptimizer.")
            if optimizer not in self._inner:
                optimizer.loss_scale_factor = self.loss_scale_factor
                self._inner.append(optimizer)
            self._var_to_optimizer_idx[id(variable)] = self._inner.index(optimizer)
        for optimizer, own in zip(self._inner, self._divided(variables), strict=True):
            if own:
                optimizer.build(own)
        super().build(variables)

    def _divided(self, variables, key=lambda variable: variable) -> list[list]:
        """Things by the inner optimizer that owns their variable."""
        parts: list[list] = [[] for _ in self._inner]
        for thing in variables:
            parts[self._var_to_optimizer_idx[id(key(thing))]].append(thing)
        return parts

    @property
    def optimizers(self):
        """The inner optimizers."""
        return self._inner

    @property
    def variables(self):
        return [*self._variables, *(variable for optimizer in self._inner for variable in optimizer.variables)]

    @property
    def iterations(self):
        return self._iterations

    @property
    def learning_rate(self):
        raise AttributeError(
            "Learning rate cannot be accessed on a MultiOptimizer. Access the learning rate on the individual "
            "sub-optimizers instead."
        )

    @learning_rate.setter
    def learning_rate(self, value):
        raise AttributeError(
            "Learning rate cannot be set on a MultiOptimizer. Set the learning rate on the individual sub-optimizers "
            "instead."
        )

    def apply(self, grads, trainable_variables=None):
        grads = list(grads)
        if not grads:
            return
        variables = self._known(grads, trainable_variables)
        if len(grads) != len(self._trainable_variables):
            raise ValueError(
                f"Gradients must match trainable variables one-to-one. Received {len(grads)} gradients and "
                f"{len(self._trainable_variables)} variables."
            )
        pairs = self._divided(zip(grads, variables, strict=True), key=lambda pair: pair[1])
        for optimizer, own in zip(self._inner, pairs, strict=True):
            if own:
                optimizer.apply(*map(list, zip(*own, strict=True)))
        self._iterations.assign(self._iterations + 1)

    def finalize_variable_values(self, var_list):
        for optimizer, own in zip(self._inner, self._divided(var_list), strict=True):
            if own:
                optimizer.finalize_variable_values(own)

    def set_weights(self, weights):
        own = len(self._variables)
        super().set_weights(weights[:own])
        for optimizer in self._inner:
            count = len(optimizer.variables)
            if optimizer.built:
                optimizer.set_weights(weights[own : own + count])
            own += count

    # --- as vectors: the inner optimizers' slots, numbered, and their free variables, counters and rates ---

    @property
    def slots(self):
        return tuple((f"{k}_{name}", fill) for k, inner in enumerate(self._inner) for name, fill in inner.slots)

    def _needs_segment(self, places):
        return False

    def _slot_places(self, places):
        parts = self._divided(places, key=lambda place: place.variable)
        return [
            dataclasses.replace(slot, name=f"{k}_{slot.name}")
            for k, (inner, own) in enumerate(zip(self._inner, parts, strict=True))
            if own
            for slot in inner._slot_places(own)
        ]

    def _extras(self):
        found = []
        for optimizer in self._inner:
            if optimizer.built:
                rate = optimizer._learning_rate_variable
                found += [optimizer._iterations, *(() if rate is None else (rate,)), *optimizer._extras()]
        return found

    def _after_steps(self):
        for optimizer in self._inner:
            if optimizer.built:
                optimizer._after_steps()

    def _flat_step(self, places, state, gradient, moment):
        values, slots, extras = {}, dict(state.slots), dict(state.extras)
        for k, own in enumerate(self._divided(places, key=lambda place: place.variable)):
            inner = self._inner[k]
            if not own:
                continue
            names = sorted({slot.name for slot in inner._slot_places(own)})
            given = State(
                joined([place.of(state.param) for place in own]),
                {name: joined([place.of(state.slots[f"{k}_{name}"]) for place in own]) for name in names},
                {variable: state.extras[variable] for variable in inner._extras()},
            )
            local = places_of([place.variable for place in own])
            iteration = state.extras[inner._iterations]
            step = Moment(self._inner_rate(inner, state, iteration), iteration, segment_of(local))
            after = flat_step(inner, local, given, joined([place.of(gradient) for place in own]), step)
            values.update((place.variable, here.of(after.param)) for place, here in zip(own, local, strict=True))
            extras.update(after.extras)
            extras[inner._iterations] = iteration + 1
            for name in names:
                parts = dict(
                    zip((place.offset for place in own), (here.of(after.slots[name]) for here in local), strict=True)
                )
                slots[f"{k}_{name}"] = joined([
                    parts.get(place.offset, np.zeros(place.size, np.float32)) for place in places
                ])  # fmt: skip
        return State(joined([values[place.variable] for place in places]), slots, extras)

    @staticmethod
    def _inner_rate(inner, state, iteration):
        if inner._learning_rate_variable is not None:
            return state.extras[inner._learning_rate_variable]
        with ValueScope([(inner._iterations, iteration)]):
            rate = inner._learning_rate
            found = rate(iteration) if isinstance(rate, schedules.LearningRateSchedule) else rate()
            return ops.cast(ops.convert_to_tensor(found), "float32")

    def get_config(self) -> dict:
        from ..saving.serialization import serialize_keras_object

        return {
            "optimizer_map": serialize_keras_object(self._optimizer_map),
            "loss_scale_factor": self.loss_scale_factor,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        from ..saving.serialization import deserialize_keras_object

        return cls(**{**config, "optimizer_map": deserialize_keras_object(config["optimizer_map"], custom_objects)})
