"""One optimizer step over flat vectors: clip, weight decay, update, moving average, constraints.

The parameters of a model are one float32 vector, cut among ranks. Nearly all of a step is elementwise and works on any
slice of it; what needs a whole variable is a sum over its elements:

- `segment`, int32[n], gives the index of the variable of each element; a norm per variable is a `segment_sum`, summed
  over the slices by `all_reduce` (`Segments`);
- constraints and optimizers with their own `update_step` get whole variables ("replicated": n = P on every rank).

The same code runs on graph nodes (`trace_update`) and on arrays (`Optimizer.apply`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import ops, scope
from .value_scope import ValueScope


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """Where a variable stands in the flat vector."""

    variable: Any
    offset: int
    size: int

    def of(self, vector: Any) -> Any:
        """Its part of a whole vector, in its shape."""
        return ops.reshape(vector[self.offset : self.offset + self.size], tuple(self.variable.shape))


@dataclasses.dataclass(frozen=True, eq=False)
class Segments:
    """Sums over the elements of each variable, for formulas that need norms.

    Attributes:
        places: the variables. segment: int32[n]. all_reduce: sum over the slices of the vector.
    """

    places: Sequence[Place]
    segment: Any
    all_reduce: Callable[[Any], Any]

    def sums(self, vector: Any) -> Any:
        """The sum over each variable's elements, float32[number of variables]."""
        return self.all_reduce(ops.segment_sum(vector, self.segment, num_segments=len(self.places)))

    def norms(self, vector: Any) -> Any:
        """The Euclidean norm of the variable that each element belongs to, float32[n]."""
        return self.spread(ops.sqrt(self.sums(ops.square(vector))))

    def spread(self, values: Any) -> Any:
        """A value per variable as one per element."""
        return ops.take(values, self.segment, axis=0)


@dataclasses.dataclass
class State:
    """What a step changes.

    Attributes:
        param: float32[n]. slots: float32[n] by name.
        extras: values of the optimizer's variables that belong to no weight, by the variable; in their own shape.
    """

    param: Any
    slots: dict[str, Any]
    extras: dict[Any, Any]

    def where(self, condition: Any, otherwise: State) -> State:
        """This state where the condition (bool[]) holds, else the other."""

        def choose(new, old):
            return new if new is old else ops.where(condition, new, old)

        return State(
            choose(self.param, otherwise.param),
            {name: choose(value, otherwise.slots[name]) for name, value in self.slots.items()},
            {key: choose(value, otherwise.extras[key]) for key, value in self.extras.items()},
        )


@dataclasses.dataclass(frozen=True)
class Moment:
    """When and where a step is made.

    Attributes:
        learning_rate: float32[]. iteration: int32[], steps (calls) made before.
        segment: int32[n] where `needs_segment`. all_reduce: sum over the slices of the vector, or over its parts.
        whole_variables: whether the vector holds its variables whole, so that sums over each of them are complete.
    """

    learning_rate: Any
    iteration: Any
    segment: Any = None
    all_reduce: Callable[[Any], Any] = lambda x: x
    whole_variables: bool = False


def places_of(variables: Sequence[Any]) -> tuple[Place, ...]:
    """The variables one after the other."""
    places, offset = [], 0
    for variable in variables:
        size = int(np.prod(variable.shape, dtype=np.int64))
        places.append(Place(variable, offset, size))
        offset += size
    return tuple(places)


def segment_of(places: Sequence[Place]) -> np.ndarray:
    """The index of the variable of each element of the whole vector, int32[n]."""
    return np.repeat(np.arange(len(places), dtype=np.int32), [p.size for p in places])


def needs_segment(optimizer: Any, places: Sequence[Place]) -> bool:
    """Whether the step asks which variable an element belongs to."""
    decays = {optimizer._decay_of(place.variable) for place in places}
    return positive(optimizer.clipnorm) or optimizer.uses_segments or len(decays) > 1


def needs_whole_variables(optimizer: Any, places: Sequence[Place]) -> bool:
    """Whether the step cannot be made on slices."""
    return (
        optimizer.whole_vectors
        or optimizer.overrides_update_step
        or any(place.variable.constraint is not None for place in places)
    )


def positive(limit: Any) -> bool:
    """Whether a clipping argument is set."""
    return bool(limit and limit > 0)


def flat_step(optimizer: Any, places: Sequence[Place], state: State, gradient: Any, moment: Moment) -> State:
    """The state after one step.

    Args:
        places: the variables of the whole vector, in order.
        state: before; its vectors are whole where `needs_whole_variables`.
        gradient: float32[n].
    """
    if not places:  # nothing is trainable
        return state
    before, every, steps = state, optimizer.gradient_accumulation_steps, moment.iteration
    if every:
        steps = ops.floor_divide(moment.iteration, every)
        moves = ops.equal(ops.mod(moment.iteration + 1, every), 0)
        collected = gradient + state.slots["gradient_accumulator"]
        gradient = ops.where(moves, collected / float(every), gradient)
    segments = Segments(places, moment.segment, (lambda x: x) if moment.whole_variables else moment.all_reduce)
    gradient = _clipped(optimizer, gradient, segments, moment)
    state = dataclasses.replace(state, param=_decayed(optimizer, places, state.param, moment))
    if optimizer.overrides_update_step:
        state = _by_variable(optimizer, places, state, gradient, moment)
    else:
        own = {name: state.slots[name] for name, _ in optimizer.slots}
        more = (segments,) if optimizer.uses_segments else ()
        param, own = optimizer.update(state.param, gradient, own, moment.learning_rate, steps, *more)
        state = State(param, {**state.slots, **own}, state.extras)
    if every:
        state = state.where(moves, before)
        state.slots["gradient_accumulator"] = ops.where(moves, ops.zeros_like(collected), collected)
    if optimizer.use_ema:
        param, average = averaged(optimizer, state.param, state.slots["average"], steps)
        state = State(param, {**state.slots, "average": average}, state.extras)
    if any(place.variable.constraint is not None for place in places):
        parts = []
        for place in places:
            value, constraint = place.of(state.param), place.variable.constraint
            parts.append(value if constraint is None else constraint(value))
        state = dataclasses.replace(state, param=joined(parts))
    return state


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


def _clipped(optimizer, gradient, segments, moment):
    if positive(optimizer.clipnorm):
        norms = ops.sqrt(segments.sums(ops.square(gradient)))
        return gradient * segments.spread(optimizer.clipnorm / ops.maximum(norms, optimizer.clipnorm))
    if positive(optimizer.global_clipnorm):
        norm = ops.sqrt(moment.all_reduce(ops.sum(ops.square(gradient))))
        scale = optimizer.global_clipnorm / ops.maximum(norm, optimizer.global_clipnorm)
        return gradient * (scale + (norm - norm))  # not a number where the norm is not finite
    if positive(optimizer.clipvalue):
        return ops.clip(gradient, -optimizer.clipvalue, optimizer.clipvalue)
    return gradient


def _decayed(optimizer, places, param, moment):
    decays = [optimizer._decay_of(place.variable) for place in places]
    if not any(decays):
        return param
    if len(set(decays)) == 1:
        return param - param * (decays[0] * moment.learning_rate)
    factors = ops.take(np.asarray([decay or 0.0 for decay in decays], np.float32), moment.segment, axis=0)
    return param - param * (factors * moment.learning_rate)


def _by_variable(optimizer, places, state, gradient, moment):
    """Calls `update_step` for each variable, in a scope where variables have the values of the vectors."""
    slots = optimizer._slot_places(places)
    mapping = [(place.variable, place.of(state.param)) for place in places]
    mapping += [(slot.variable, slot.of(state.slots[slot.name])) for slot in slots]
    mapping += [*state.extras.items(), (optimizer._iterations, moment.iteration)]
    if optimizer._learning_rate_variable is not None:
        mapping.append((optimizer._learning_rate_variable, moment.learning_rate))
    current = scope.current_scope()
    with ValueScope(mapping) as values:
        for place in places:
            optimizer.update_step(place.of(gradient), place.variable, moment.learning_rate)
    if besides := values.assigned_besides():
        if current is not None and current.tracing and not isinstance(current, ValueScope):
            names = [variable.path for variable, _ in besides]
            raise ValueError(
                f"optimizer '{optimizer.name}' ({type(optimizer).__name__}) assigns variables {names} in its "
                "`update_step` that it did not make with `add_variable` or `add_variable_from_reference` in `build`."
            )
        for variable, value in besides:
            variable.assign(value)
    param = joined([values.value(place.variable) for place in places])
    found = {slot: values.value(slot.variable) for slot in slots}
    extras = {variable: values.value(variable) for variable in state.extras}
    return State(param, {**state.slots, **gathered(found, state.slots, param)}, extras)


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
