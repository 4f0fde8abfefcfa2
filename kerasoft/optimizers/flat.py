"""An optimizer's step as an update graph over flat vectors, and its variables as slot vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..compiler.ir import Graph, symbol
from ..compiler.ops.collective import all_reduce
from ..compiler.ops.registry import input_node
from ..scope import Scope
from . import schedules
from .step import Moment, Place, State, flat_step, gathered, needs_segment, needs_whole_variables, places_of


@dataclasses.dataclass(frozen=True, eq=False)
class SlotPlace(Place):
    """Where an optimizer variable stands in the vector of slot `name`."""

    name: str


class FlatOptimizer:
    """What the trainer and the runtime ask of an optimizer. See docs/design/0001, "Losses, metrics and optimizers"."""

    def trace_update(self, layout: Any) -> tuple[Graph, str, tuple[tuple[str, float], ...]]:
        """The update graph, its mode ("sliced" or "replicated") and the slots ``(name, first value)`` it keeps.

        Args:
            layout: `kerasoft.compiler.program.Layout` whose `params` are the variables of `build`, in order.

        Inputs and outputs are those of docs/design/0001; `segment` is an input only where needed. With a schedule the
        learning rate comes from `iteration`. `loss_scale_factor` is left out: traced steps do not scale the loss.
        """
        places = self._places(layout)
        whole = needs_whole_variables(self, places) or bool(self._extras())
        n = sum(place.size for place in places) if whole else symbol("n")
        specs = self.slot_specs(layout)
        param, gradient = (input_node(name, (n,), "float32") for name in ("param", "gradient"))
        slots = {name: input_node(f"slot/{name}", (n,), "float32") for name, _ in specs}
        segment = input_node("segment", (n,), "int32") if self._needs_segment(places) else None
        rate, iteration = input_node("learning_rate", (), "float32"), input_node("iteration", (), "int32")
        used = rate
        with Scope(training=True):
            if isinstance(self._learning_rate, schedules.LearningRateSchedule):
                used = ops.cast(ops.convert_to_tensor(self._learning_rate(iteration)), "float32")
            moment = Moment(used, iteration, segment, (lambda x: x) if whole else all_reduce)
            extra = self._extra_places(places)
            own = {name: vector for name, vector in slots.items() if name not in {e.name for e in extra}}
            extras = {e.variable: ops.cast(e.of(slots[e.name]), e.variable.dtype) for e in extra}
            state = self._flat_step(places, State(param, own, extras), gradient, moment)
            values = {e: state.extras[e.variable] for e in extra}
            after = {**state.slots, **gathered(values, {e.name: None for e in extra}, param)}
        inputs = (param, gradient, *slots.values(), *(() if segment is None else (segment,)), rate, iteration)
        names = ("param", *(f"slot/{name}" for name, _ in specs))
        graph = Graph(inputs, (state.param, *(after[name] for name, _ in specs)), names)
        return graph, "replicated" if whole else "sliced", specs

    def _needs_segment(self, places: Sequence[Place]) -> bool:
        return needs_segment(self, places)

    def _flat_step(self, places: Sequence[Place], state: State, gradient: Any, moment: Moment) -> State:
        return flat_step(self, places, state, gradient, moment)

    def slot_specs(self, layout: Any) -> tuple[tuple[str, float], ...]:
        """All slots ``(name, first value)``, averages and accumulators included."""
        fills, places = dict(self.slots), self._places(layout)
        names = dict.fromkeys(slot.name for slot in (*self._slot_places(places), *self._extra_places(places)))
        return tuple((name, float(fills.get(name, 0.0))) for name in names)

    def variables_to_slots(self, layout: Any) -> tuple[np.ndarray, ...]:
        """The slot vectors float32[P], in the order of `slot_specs`, from the optimizer's variables."""
        places = self._places(layout)
        vectors = {
            name: np.zeros(sum(place.size for place in places), np.float32) for name, _ in self.slot_specs(layout)
        }
        for slot in (*self._slot_places(places), *self._extra_places(places)):
            vectors[slot.name][slot.offset : slot.offset + slot.size] = np.ravel(slot.variable.numpy())
        return tuple(vectors.values())

    def slots_to_variables(self, layout: Any, slots: Sequence[Any], iteration: Any = None) -> None:
        """The optimizer's variables from slot vectors (and the number of steps made)."""
        vectors = {name: np.asarray(v) for (name, _), v in zip(self.slot_specs(layout), slots, strict=True)}
        places = self._places(layout)
        for slot in (*self._slot_places(places), *self._extra_places(places)):
            part = vectors[slot.name][slot.offset : slot.offset + slot.size]
            slot.variable.assign(part.reshape(slot.variable.shape))
        if iteration is not None:
            self._iterations.assign(np.int32(iteration))
        self._after_steps()

    def _places(self, layout: Any) -> tuple[Place, ...]:
        if not self.built:
            raise ValueError(f"optimizer '{self.name}' must be built first: optimizer.build(trainable_variables)")
        places = places_of(self._trainable_variables)
        given = [(entry.size, entry.offset) for entry in layout.params]
        if given != [(place.size, place.offset) for place in places]:
            raise ValueError(
                f"optimizer '{self.name}' was built for {[p.variable.path for p in places]}, the layout holds "
                f"{[entry.name for entry in layout.params]}. Compile the model again after changing its weights."
            )
        return places

    def _slot_places(self, places: Sequence[Place]) -> list[SlotPlace]:
        """Places of the optimizer's variables that belong to these weights, in slot vectors."""
        offsets = {id(place.variable): place.offset for place in places}
        found = []
        for variable, name, index in self._slots:
            weight = None if index is None else id(self._trainable_variables[index])
            if weight in offsets:
                found.append(SlotPlace(variable, offsets[weight], _size(variable), name))
        return found

    def _extras(self) -> list[Any]:
        """The optimizer's variables that belong to no weight, but for iteration and learning rate."""
        return [variable for variable, _, index in self._slots if index is None]

    def _extra_places(self, places: Sequence[Place]) -> list[SlotPlace]:
        """Places of `_extras` in vectors of their own."""
        total = sum(place.size for place in places)
        found, vector, free = [], -1, total
        for variable in self._extras():
            size = _size(variable)
            if size > total:
                raise ValueError(
                    f"optimizer '{self.name}': variable '{variable.path}' has {size} elements, more than the "
                    f"{total} of all weights; such a state cannot be kept."
                )
            if free + size > total:
                vector, free = vector + 1, 0
            found.append(SlotPlace(variable, free, size, f"extra_{vector}"))
            free += size
        return found

    def _slot_vectors(self, places: Sequence[Place]) -> dict[str, Any]:
        """Slot vectors of these weights, from the values that the variables have in the current scope."""
        total = np.zeros(sum(place.size for place in places), np.float32)
        slots = self._slot_places(places)
        values = {slot: ops.convert_to_tensor(slot.variable) for slot in slots}
        return gathered(values, {slot.name: None for slot in slots}, total)


def _size(variable: Any) -> int:
    return int(np.prod(variable.shape, dtype=np.int64))
