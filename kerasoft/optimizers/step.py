"""One optimizer step over flat vectors: clip, weight decay, update, moving average, constraints.

The parameters of a model are one float32 vector, cut among ranks. Nearly all of a step is elementwise and works on any
slice of it; what needs a whole variable is a sum over its elements:

- `segment`, int32[n], gives the index of the variable of each element; a norm per variable is a `segment_sum`, summed
  over the slices by `all_reduce`;
- constraints and optimizers with their own `update_step` get whole variables ("replicated": n = P on every rank).

The same code runs on graph nodes (`trace`) and on arrays (`Optimizer.apply`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from .. import ops, scope


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """Where a variable stands in the flat vector."""

    variable: Any
    offset: int
    size: int

    def of(self, vector: Any) -> Any:
        """Its part of a whole vector, in its shape."""
        return ops.reshape(vector[self.offset : self.offset + self.size], tuple(self.variable.shape))


def places_of(variables: Sequence[Any]) -> tuple[Place, ...]:
    """The variables one after the other."""
    places, offset = [], 0
    for variable in variables:
        size = int(np.prod(variable.shape, dtype=np.int64))
        places.append(Place(variable, offset, size))
        offset += size
    return tuple(places)


def needs_segment(optimizer: Any, places: Sequence[Place]) -> bool:
    """Whether the step asks which variable an element belongs to."""
    decays = optimizer.weight_decay is not None
    return bool(optimizer.clipnorm) or (decays and not all(optimizer._use_weight_decay(p.variable) for p in places))


def needs_whole_variables(optimizer: Any, places: Sequence[Place]) -> bool:
    """Whether the step cannot be made on slices."""
    return optimizer.overrides_update_step or any(p.variable.constraint is not None for p in places)


def flat_step(
    optimizer: Any,
    places: Sequence[Place],
    param: Any,
    gradient: Any,
    slots: dict[str, Any],
    learning_rate: Any,
    iteration: Any,
    segment: Any = None,
    all_reduce: Callable[[Any], Any] = lambda x: x,
) -> tuple[Any, dict[str, Any]]:
    """The parameters and slots after one step.

    Args:
        places: the variables of the whole vector, in order.
        param, gradient: float32[n]; n is the whole vector where `needs_whole_variables`.
        slots: float32[n] by name.
        learning_rate: float32[], before the step.
        iteration: int32[], steps (calls) made before.
        segment: int32[n], where `needs_segment`.
        all_reduce: sum over the slices of the vector.
    """
    before, slots_before = param, slots
    every, steps = optimizer.gradient_accumulation_steps, iteration
    if every:
        steps = ops.floor_divide(iteration, every)
        moves = ops.equal(ops.mod(iteration + 1, every), 0)
        collected = gradient + slots["gradient_accumulator"]
        gradient = ops.where(moves, collected / float(every), gradient)
    gradient = _clipped(optimizer, gradient, segment, len(places), all_reduce)
    if optimizer.weight_decay is not None:
        param = _decayed(optimizer, places, param, learning_rate, segment)
    if optimizer.overrides_update_step:
        param, slots = _by_variable(optimizer, places, param, gradient, slots, learning_rate, iteration)
    else:
        own = {name: slots[name] for name, _ in optimizer.slots}
        param, own = optimizer.update(param, gradient, own, learning_rate, steps)
        slots = {**slots, **own}
    if every:
        param = ops.where(moves, param, before)
        slots = {name: ops.where(moves, value, slots_before[name]) for name, value in slots.items()}
        slots["gradient_accumulator"] = ops.where(moves, ops.zeros_like(collected), collected)
    if optimizer.use_ema:
        param, average = averaged(optimizer, param, slots["average"], steps)
        slots = {**slots, "average": average}
    if any(place.variable.constraint is not None for place in places):
        parts = []
        for place in places:
            value, constraint = place.of(param), place.variable.constraint
            parts.append(value if constraint is None else constraint(value))
        param = joined(parts)
    return param, slots


def joined(parts: Sequence[Any]) -> Any:
    """Arrays as one flat vector."""
    return ops.concatenate([ops.reshape(part, (-1,)) for part in parts], axis=0)


def averaged(optimizer: Any, param: Any, average: Any, steps: Any) -> tuple[Any, Any]:
    """Parameters and their moving average after a step; the first step copies."""
    momentum = ops.where(ops.equal(steps, 0), 0.0, optimizer.ema_momentum)
    average = momentum * average + (1.0 - momentum) * param
    if optimizer.ema_overwrite_frequency:
        due = ops.equal(ops.mod(steps + 1, optimizer.ema_overwrite_frequency), 0)
        param = ops.where(due, average, param)
    return param, average


def _clipped(optimizer, gradient, segment, count, all_reduce):
    if optimizer.clipnorm:
        squares = all_reduce(ops.segment_sum(ops.square(gradient), segment, num_segments=count))
        factor = optimizer.clipnorm / ops.maximum(ops.sqrt(squares), optimizer.clipnorm)
        return gradient * ops.take(factor, segment, axis=0)
    if optimizer.global_clipnorm:
        norm = ops.sqrt(all_reduce(ops.sum(ops.square(gradient))))
        scale = optimizer.global_clipnorm / ops.maximum(norm, optimizer.global_clipnorm)
        return gradient * (scale + (norm - norm))  # not a number where the norm is not finite
    if optimizer.clipvalue:
        return ops.clip(gradient, -optimizer.clipvalue, optimizer.clipvalue)
    return gradient


def _decayed(optimizer, places, param, learning_rate, segment):
    factor = optimizer.weight_decay * learning_rate
    decays = [optimizer._use_weight_decay(place.variable) for place in places]
    if not all(decays):
        factor = factor * ops.take(np.asarray(decays, np.float32), segment, axis=0)
    return param - param * factor


def _by_variable(optimizer, places, param, gradient, slots, learning_rate, iteration):
    """Calls `update_step` for each variable. Variables are assigned and read: in a trace within a scope of its own."""
    tracing = scope.current_scope() is not None
    with scope.Scope(training=True) if tracing else nullcontext():
        for place in places:
            place.variable.assign(place.of(param))
        optimizer._iterations.assign(iteration)
        for slot in optimizer._slot_places(places):
            slot.variable.assign(slot.of(slots[slot.name]))
        for place in places:
            optimizer.update_step(place.of(gradient), place.variable, learning_rate)
        values = {slot: ops.convert_to_tensor(slot.variable) for slot in optimizer._slot_places(places)}
        param = joined([ops.convert_to_tensor(place.variable) for place in places])
    return param, {**slots, **gathered(values, slots, param)}


def gathered(values: dict[Any, Any], slots: dict[str, Any], like: Any) -> dict[str, Any]:
    """Slot vectors from the values of their variables; gaps are 0."""
    vectors = {}
    for name in slots:
        parts, end = [], 0
        for slot, value in sorted(((s, v) for s, v in values.items() if s.name == name), key=lambda p: p[0].offset):
            if slot.offset > end:
                parts.append(np.zeros(slot.offset - end, np.float32))
            parts.append(ops.cast(ops.convert_to_tensor(value), "float32"))
            end = slot.offset + slot.size
        if not parts:
            continue
        if end < like.shape[0]:
            parts.append(np.zeros(like.shape[0] - end, np.float32))
        vectors[name] = joined(parts)
    return vectors
