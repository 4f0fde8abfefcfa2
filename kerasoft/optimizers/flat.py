"""An optimizer's step as an update graph over flat vectors, and its variables as slot vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..compiler.ir import Graph, symbol
from ..compiler.ops.collective import all_reduce
from ..compiler.ops.registry import input_node
from ..compiler.rows import AdamRows, IdleRule
from ..scope import Scope
from ..variables import frozen
from . import schedules
from .step import Moment, Place, State, flat_step, gathered, needs_segment, needs_whole_variables, places_of, positive


@dataclasses.dataclass(frozen=True, eq=False)
class SlotPlace(Place):
    """Where an optimizer variable stands in the vector of slot `name`."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Cut:
    """Slot vectors and the variables that were cut out of them."""

    layout: tuple
    vectors: tuple[np.ndarray, ...]
    variables: tuple[tuple[Any, np.ndarray], ...]

    def holds(self) -> bool:
        """Whether no variable was set since."""
        return all(variable.numpy() is value for variable, value in self.variables)


class FlatOptimizer:
    """What the trainer and the runtime ask of an optimizer. See docs/design/0001, "Losses, metrics and optimizers"."""

    _cut: _Cut | None = None  # what `slots_to_variables` did last

    def trace_update(
        self, layout: Any, part: Sequence[int] | None = None
    ) -> tuple[Graph, str, tuple[tuple[str, float], ...]]:
        """The update graph, its mode ("sliced" or "replicated") and the slots ``(name, first value)`` it keeps.

        Args:
            layout: `kerasoft.compiler.program.Layout` whose `params` are the variables of `build`, in order.
            part: indices of some of them, for a worker whose vectors hold these, whole, one after another; norms of all are
                sums over such workers. Only where `refuses_parts` gives None.

        Inputs and outputs are those of docs/design/0001; `segment` is an input only where needed. With a schedule the
        learning rate comes from `iteration`. `loss_scale_factor` is left out: traced steps do not scale the loss.
        """
        places = self._places(layout)
        if part is not None:
            places = places_of([places[i].variable for i in part])
        whole = needs_whole_variables(self, self._places(layout)) or bool(self._extras())
        n = sum(place.size for place in places) if whole else symbol("n")
        specs = self.slot_specs(layout)
        param, gradient = (input_node(name, (n,), "float32") for name in ("param", "gradient"))
        slots = {name: input_node(f"slot/{name}", (n,), "float32") for name, _ in specs}
        segment = input_node("segment", (n,), "int32") if self._needs_segment(places) else None
        rate, iteration = input_node("learning_rate", (), "float32"), input_node("iteration", (), "int32")
        with Scope(training=True):
            alone = whole and part is None
            moment = Moment(
                self._rate_of(rate, iteration), iteration, segment, (lambda x: x) if alone else all_reduce, whole
            )
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

    def refuses_parts(self) -> str | None:
        """Why a worker cannot update some of the variables by itself, each of them whole; None if it can."""
        if type(self)._flat_step is not FlatOptimizer._flat_step:
            return f"{type(self).__name__} wraps other optimizers"
        return f"{type(self).__name__} keeps variables that belong to no weight" if self._extras() else None

    def trace_idle(self, variables: Mapping[str, Any], slots: Sequence[str]) -> dict[str, IdleRule | str]:
        """For each table by name what steps without a gradient do to its rows; or why it is updated as a whole.

        Args:
            variables: the tables. slots: names of the slots of `trace_update`.
        """
        refused = self._refuses_rows()
        if refused:
            return dict.fromkeys(variables, refused)
        made: dict[Any, Any] = {}  # by the decay
        for variable in variables.values():
            decay = self._decay_of(variable) or None
            if decay not in made:
                idle = self.idle(decay)
                made[decay] = idle if isinstance(idle, str) else self._idle_graphs(idle, slots, decay)
        return {name: made[self._decay_of(variable) or None] for name, variable in variables.items()}

    def _refuses_rows(self) -> str | None:
        """Why no table can be updated by rows."""
        places = places_of(self._trainable_variables)
        owner = {name: next(c for c in type(self).__mro__ if name in vars(c)) for name in ("idle", "update")}
        for refuses, reason in (
            (type(self)._flat_step is not FlatOptimizer._flat_step, f"{type(self).__name__} wraps other optimizers"),
            (self.overrides_update_step, f"{type(self).__name__} has an `update_step` of its own"),
            (not issubclass(owner["idle"], owner["update"]), f"{type(self).__name__} has an `update` of its own"),
            (self.whole_vectors or self.uses_segments, f"{type(self).__name__} looks at whole variables"),
            (positive(self.clipnorm), "clipnorm needs the gradient's norm"),
            (positive(self.global_clipnorm), "global_clipnorm needs the norm of all gradients"),
            (self.use_ema, "use_ema averages every row in every step"),
            (bool(self.gradient_accumulation_steps), "gradients are accumulated over several calls"),
            (any(p.variable.constraint is not None for p in places), "a weight of the model has a constraint"),
            (bool(self._extras()), f"{type(self).__name__} keeps variables that belong to no weight"),
        ):
            if refuses:
                return reason
        return None

    def _idle_graphs(self, idle: Any, slots: Sequence[str], decay: float | None) -> IdleRule:
        h, n, d = symbol("h"), symbol("n"), symbol("d")
        names = [f"coefficient/{k}" for k in range(len(idle.first))]
        with Scope(training=True):
            columns = [input_node(name, (h,), "float32") for name in names]
            age = input_node("age", (h,), "float32")
            rate, iteration = input_node("learning_rate", (), "float32"), input_node("iteration", (), "int32")
            after = idle.advance(columns, age, self._rate_of(rate, iteration), iteration)
            advance = Graph((*columns, age, rate, iteration), tuple(after), tuple(names))
            param = input_node("param", (n, d), "float32")
            held = {name: input_node(f"slot/{name}", (n, d), "float32") for name in slots}
            columns = [input_node(name, (n, 1), "float32") for name in names]
            gap = input_node("gap", (n, 1), "float32")
            moved, changed = idle.catch_up(param, held, columns, gap)
            outputs = {"param": moved, **{f"slot/{name}": value for name, value in changed.items()}}
            catch_up = Graph((param, *held.values(), *columns, gap), tuple(outputs.values()), tuple(outputs))
        adam = self._adam_rows(idle.adam, decay) if idle.adam and tuple(slots) == ("momentum", "velocity") else None
        return IdleRule(tuple(idle.first), advance, catch_up, adam)

    def _adam_rows(self, adam: Any, decay: float | None) -> AdamRows:
        with Scope(training=True):
            rate, iteration = input_node("learning_rate", (), "float32"), input_node("iteration", (), "int32")
            now = self._rate_of(rate, iteration)
            found = ops.convert_to_tensor(adam.rate(now, iteration)), ops.convert_to_tensor((decay or 0.0) * now)
            rates = Graph((rate, iteration), found, ("rate", "decay"))
        clip = self.clipvalue if positive(self.clipvalue) else None
        return AdamRows(adam.beta_1, adam.beta_2, adam.epsilon, clip, bool(decay), adam.scales, rates)

    def _rate_of(self, rate: Any, iteration: Any) -> Any:
        """The learning rate of a step: the schedule's, if there is one."""
        if isinstance(self._learning_rate, schedules.LearningRateSchedule):
            return ops.cast(ops.convert_to_tensor(self._learning_rate(iteration)), "float32")
        return rate

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
        """The slot vectors float32[P], in the order of `slot_specs`, from the optimizer's variables; not to be written to."""
        places = self._places(layout)
        known = self._cut
        if known is not None and known.layout == layout.params and known.holds():
            return known.vectors
        vectors = {
            name: np.zeros(sum(place.size for place in places), np.float32) for name, _ in self.slot_specs(layout)
        }
        for slot in (*self._slot_places(places), *self._extra_places(places)):
            if slot.variable.fill != 0.0:  # before the first step nothing is drawn, nor are pages touched for zeros
                vectors[slot.name][slot.offset : slot.offset + slot.size] = np.ravel(slot.variable.numpy())
        return tuple(vectors.values())

    def slots_to_variables(self, layout: Any, slots: Sequence[Any], iteration: Any = None) -> None:
        """The optimizer's variables from slot vectors (and the number of steps made).

        Variables are cut out of the vectors without a copy, so the vectors become read-only.
        """
        vectors = {name: frozen(v) for (name, _), v in zip(self.slot_specs(layout), slots, strict=True)}
        places, cut = self._places(layout), []
        for slot in (*self._slot_places(places), *self._extra_places(places)):
            part = vectors[slot.name][slot.offset : slot.offset + slot.size]
            slot.variable.adopt(part.reshape(slot.variable.shape))
            cut.append((slot.variable, slot.variable.numpy()))
        whole = all(value.base is not None for _, value in cut)
        self._cut = _Cut(layout.params, tuple(vectors.values()), tuple(cut)) if whole else None
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
