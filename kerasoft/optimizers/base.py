"""What an optimizer is: arguments, variables in Keras' order, a step on variables or as an update graph.

A built-in optimizer is `slots` and an elementwise `update`; clipping, weight decay, accumulation, moving averages and
constraints are in `step.py` for all of them. A user's optimizer may instead override `build` and
``update_step(gradient, variable, learning_rate)`` as in Keras. The step as a graph for `fit` is in `flat.py`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..initializers import Constant
from ..initializers import get as get_initializer
from ..naming import auto_name, name_scope
from ..variables import Variable
from . import schedules
from .flat import FlatOptimizer
from .step import Moment, Segments, State, averaged, joined, places_of, segment_of
from .value_scope import ValueScope


class Optimizer(FlatOptimizer):
    """Base of optimizers.

    Args:
        learning_rate: a float, a `schedules.LearningRateSchedule`, or a callable without arguments.
        weight_decay: decoupled decay: each step takes ``learning_rate * weight_decay`` of every weight.
        clipnorm: largest norm of the gradient of each variable.
        clipvalue: largest absolute value of a gradient's elements.
        global_clipnorm: largest norm of all gradients together. At most one of the three.
        use_ema: whether to keep an exponential moving average of the weights, which replaces them at the end of `fit`.
        ema_momentum: weight of the old average, in [0, 1].
        ema_overwrite_frequency: steps after which the average replaces the weights; None: only at the end.
        loss_scale_factor: what `scale_loss` multiplies the loss by and `apply` divides gradients by.
        gradient_accumulation_steps: calls whose gradients are averaged into one step, at least 2.
        name: name of the optimizer.

    >>> import kerasoft as ks
    >>> weight = ks.Variable([1.0, 2.0], name="w")
    >>> optimizer = ks.optimizers.SGD(learning_rate=0.5)
    >>> optimizer.apply([np.array([1.0, -1.0])], [weight])
    >>> weight.numpy().tolist()
    [0.5, 2.5]
    """

    def __init__(
        self,
        learning_rate,
        weight_decay=None,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        use_ema=False,
        ema_momentum=0.99,
        ema_overwrite_frequency=None,
        loss_scale_factor=None,
        gradient_accumulation_steps=None,
        name=None,
        **kwargs,
    ):
        if kwargs.pop("decay", None) is not None:
            warnings.warn("Argument `decay` is no longer supported and will be ignored.", stacklevel=3)
        if kwargs:
            raise ValueError(f"Argument(s) not recognized: {kwargs}")
        self.name = name if name is not None else auto_name(type(self).__name__)
        if sum(value is not None for value in (clipnorm, clipvalue, global_clipnorm)) > 1:
            raise ValueError(
                "Only one of `clipnorm`, `clipvalue` and `global_clipnorm` can be set. Received: "
                f"clipnorm={clipnorm}, clipvalue={clipvalue}, global_clipnorm={global_clipnorm}"
            )
        if gradient_accumulation_steps and gradient_accumulation_steps < 2:
            raise ValueError(
                "`gradient_accumulation_steps` must be an integer >= 2. Received: gradient_accumulation_steps="
                f"{gradient_accumulation_steps}"
            )
        if use_ema and not 0 <= ema_momentum <= 1:
            raise ValueError(f"`ema_momentum` must be in the range [0, 1]. Received: ema_momentum={ema_momentum}")
        every = ema_overwrite_frequency
        if use_ema and every and (not isinstance(every, int) or every < 1):
            raise ValueError(
                f"`ema_overwrite_frequency` must be an integer >= 1 or None. Received: ema_overwrite_frequency={every}"
            )
        self.weight_decay = weight_decay
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.use_ema, self.ema_momentum, self.ema_overwrite_frequency = use_ema, ema_momentum, every
        self.loss_scale_factor = loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.built = False
        self._variables: list[Variable] = []
        self._trainable_variables: list[Variable] = []
        self._index: dict[int, int] = {}
        self._slots: list[tuple[Variable, str, int | None]] = []  # variable, slot name, index of its reference
        self._excluded: tuple[set[int], re.Pattern | None] = (set(), None)
        with name_scope(self.name):
            self._iterations = Variable(0, dtype="int32", trainable=False, name="iteration")
        self._variables.append(self._iterations)
        self._learning_rate_variable: Variable | None = None
        if callable(learning_rate):
            self._learning_rate = learning_rate
        elif isinstance(learning_rate, float):
            with name_scope(self.name):
                rate = Variable(learning_rate, dtype="float32", trainable=False, name="learning_rate")
            self._variables.append(rate)
            self._learning_rate = self._learning_rate_variable = rate
        else:
            raise ValueError(
                "Argument `learning_rate` should be float, or an instance of LearningRateSchedule, or a callable "
                "(that takes in the current iteration value and returns the corresponding learning rate value). "
                f"Received instead: learning_rate={learning_rate}"
            )

    # --- what a built-in optimizer defines ---

    uses_segments = False
    """Whether `update` takes a further argument `step.Segments`, for norms of whole variables."""

    whole_vectors = False
    """Whether `update` needs the whole vectors, not slices of them."""

    @property
    def slot_groups(self) -> tuple[tuple[tuple[str, float], ...], ...]:
        """Slots ``(name, first value)`` in groups; within a group Keras interleaves the variables of the slots."""
        return ()

    @property
    def slots(self) -> tuple[tuple[str, float], ...]:
        """Its own slots ``(name, first value)``, those of `update`."""
        return tuple(slot for group in self.slot_groups for slot in group)

    def update(self, param, gradient, slots: Mapping[str, Any], learning_rate, iteration) -> tuple[Any, dict]:
        """Parameters and slots after one step; elementwise, so that any slice of the parameters will do.

        Args:
            param, gradient: float32[n]. slots: float32[n] by name.
            learning_rate: float32[]. iteration: int32[], steps made before.
        """
        raise NotImplementedError(f"optimizer {type(self).__name__} must override `update` or `update_step`")

    def idle(self, decay: float | None) -> Any:
        """What steps without a gradient do, an `idle.Idle`; or a sentence why it is not known.

        Args:
            decay: the weight's decoupled decay.
        """
        return f"{type(self).__name__} does not say what a step without gradient does to a row"

    # --- variables ---

    @property
    def overrides_update_step(self) -> bool:
        """Whether a subclass has its own `update_step`, which needs whole variables."""
        return type(self).update_step is not Optimizer.update_step

    @property
    def variables(self) -> list[Variable]:
        """iteration, learning_rate (unless a schedule), averages, accumulators, then the slots: Keras' order."""
        return list(self._variables)

    @property
    def iterations(self) -> Any:
        """Steps made (calls / `gradient_accumulation_steps`)."""
        if self.gradient_accumulation_steps:
            return ops.floor_divide(self._iterations, self.gradient_accumulation_steps)
        return self._iterations

    def build(self, variables: Sequence[Variable]) -> None:
        """Makes the optimizer's variables for these trainable variables. A second call does nothing."""
        if self.built:
            return
        variables = list(variables)
        self._trainable_variables = list(variables)
        self._index = {id(variable): i for i, variable in enumerate(variables)}
        if self.use_ema:
            self._model_variables_moving_average = self.add_optimizer_variables(variables, "average")
        if self.gradient_accumulation_steps:
            self.add_optimizer_variables(variables, "gradient_accumulator")
        for group in self.slot_groups:
            names = [name for name, _ in group]
            self.add_optimizer_variables(variables, names, [Constant(fill) for _, fill in group])
        self.built = True

    def add_variable(self, shape, initializer="zeros", dtype=None, aggregation="none", layout=None, name=None):
        """A variable of the optimizer that belongs to no weight."""
        return self._add(shape, initializer, name, None, dtype)

    def add_variable_from_reference(self, reference_variable, name=None, initializer="zeros"):
        """A variable of the shape of a weight."""
        name = name or "var"
        path = str(getattr(reference_variable, "path", reference_variable.name)).replace("/", "_").replace(":", "_")
        index = self._index.get(id(reference_variable))
        dtype = reference_variable.dtype
        return self._add(reference_variable.shape, initializer, f"{path}_{name}", index, dtype, slot=name)

    def add_optimizer_variables(self, trainable_variables, name, initializer="zeros"):
        """For each weight one variable of each name; a list of variables per name."""
        names = [name] if isinstance(name, str) else list(name)
        first = initializer if isinstance(initializer, (list, tuple)) else [initializer] * len(names)
        if len(first) != len(names):
            raise ValueError(
                "The number of provided names must match the number of provided initializers. Received "
                f"name='{name}', initializer='{initializer}'"
            )
        made: tuple[list, ...] = tuple([] for _ in names)
        for variable in trainable_variables:
            for each, slot_name, start in zip(made, names, first, strict=True):
                each.append(self.add_variable_from_reference(variable, slot_name, start))
        return made[0] if isinstance(name, str) else made

    def _add(self, shape, initializer, name, index, dtype, slot="extra"):
        with name_scope(self.name):
            first = get_initializer(initializer)
            dtype = {"int": "int32"}.get(dtype, dtype)
            variable = Variable(first, shape=tuple(shape), dtype=dtype or "float32", trainable=False, name=name)
        taken = [s for _, s, i in self._slots if i == index and index is not None]
        while slot in taken:
            slot += "_"
        self._slots.append((variable, slot, index))
        self._variables.append(variable)
        return variable

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Variable) and name not in ("_iterations", "_learning_rate", "_learning_rate_variable"):
            if "_slots" not in self.__dict__:
                raise RuntimeError(
                    f"In optimizer '{type(self).__name__}', you forgot to call `super().__init__()` as the first "
                    "statement in the `__init__()` method. Go add it!"
                )
            if all(value is not known for known in self._variables):
                self._slots.append((value, "extra", None))
                self._variables.append(value)
        super().__setattr__(name, value)

    def _var_key(self, variable: Variable) -> int:
        return id(variable)

    def _get_variable_index(self, variable: Variable) -> int:
        return self._index[id(variable)]

    # --- the learning rate ---

    @property
    def learning_rate(self) -> Any:
        """The variable, or the schedule's or callable's value now. Assigning a float works unless it is a schedule."""
        if isinstance(self._learning_rate, schedules.LearningRateSchedule):
            return self._learning_rate(self._iterations)
        return self._learning_rate if isinstance(self._learning_rate, Variable) else self._learning_rate()

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        if callable(learning_rate):
            self._variables = [v for v in self._variables if v is not self._learning_rate]
            self._learning_rate, self._learning_rate_variable = learning_rate, None
        elif isinstance(self._learning_rate, Variable):
            self._learning_rate.assign(learning_rate)
        else:
            raise TypeError(
                "This optimizer was created with a `LearningRateSchedule` object as its `learning_rate` constructor "
                "argument, hence its learning rate is not settable. If you need the learning rate to be settable, you "
                "should instantiate the optimizer with a float `learning_rate` argument."
            )

    # --- weight decay ---

    def exclude_from_weight_decay(self, var_list=None, var_names=None) -> None:
        """Weights without decay: these variables, and those whose name contains one of `var_names`.

        Raises:
            ValueError: the optimizer is built already.
        """
        if self.built:
            raise ValueError("`exclude_from_weight_decay()` can only be configured before the optimizer is built.")
        pattern = re.compile("|".join(sorted(set(var_names)))) if var_names else None
        self._excluded = ({id(variable) for variable in var_list or ()}, pattern)

    def _use_weight_decay(self, variable: Variable) -> bool:
        ids, pattern = self._excluded
        return id(variable) not in ids and (pattern is None or pattern.search(variable.name) is None)

    def _decay_of(self, variable: Variable) -> float | None:
        """The decoupled weight decay of a variable."""
        return self.weight_decay if self._use_weight_decay(variable) else None

    # --- a step on variables ---

    def scale_loss(self, loss):
        """The loss times `loss_scale_factor`."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Variable:
        """One step for ``(gradient, variable)`` pairs; gives the iteration counter."""
        gradients, variables = zip(*grads_and_vars, strict=True)
        self.apply(gradients, variables)
        return self._iterations

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Variable] | None = None) -> None:
        """One step with these gradients, in place. A variable whose gradient is None stays as it is.

        Raises:
            ValueError: unknown variables, another number of gradients, or None for all.
        """
        grads = list(grads)
        if not grads:
            return
        variables = self._known(grads, trainable_variables)
        missing = [v.path for g, v in zip(grads, variables, strict=True) if g is None]
        if len(missing) == len(grads):
            raise ValueError("No gradients provided for any variable.")
        if missing:
            warnings.warn(
                f"Gradients do not exist for variables {missing} when minimizing the loss. If using "
                "`model.compile()`, did you forget to provide a `loss` argument?",
                stacklevel=2,
            )
        pairs = [(g, v) for g, v in zip(grads, variables, strict=True) if g is not None]
        for gradient, variable in pairs:
            if getattr(variable, "overwrite_with_gradient", False):
                variable.assign(gradient)
        pairs = [(g, v) for g, v in pairs if not getattr(v, "overwrite_with_gradient", False)]
        iteration = ops.convert_to_tensor(self._iterations)
        if pairs:
            self._apply(pairs, iteration)
        self._iterations.assign(iteration + 1)
        self._after_steps()

    def _apply(self, pairs: Sequence[tuple[Any, Variable]], iteration: Any) -> None:
        """One step of variables that all have a gradient."""
        places = places_of([v for _, v in pairs])
        gradient = joined([ops.cast(ops.convert_to_tensor(g), "float32") for g, _ in pairs])
        if self.loss_scale_factor is not None:
            gradient = gradient / float(self.loss_scale_factor)
        rate = ops.cast(ops.convert_to_tensor(self.learning_rate), "float32")
        param = joined([ops.cast(ops.convert_to_tensor(v), "float32") for _, v in pairs])
        extras = {variable: ops.convert_to_tensor(variable) for variable in self._extras()}
        state = State(param, self._slot_vectors(places), extras)
        state = self._flat_step(places, state, gradient, Moment(rate, iteration, segment_of(places)))
        for place in places:
            place.variable.assign(place.of(state.param))
        for slot in self._slot_places(places):
            slot.variable.assign(slot.of(state.slots[slot.name]))
        for variable, value in state.extras.items():
            variable.assign(value)
        if self.use_ema:
            self._average_the_rest({id(v) for _, v in pairs}, iteration)

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> tuple[list, list]:
        """The trainable variables' and the optimizer's values after a step; nothing is changed. Works under `jax.jit`.

        Args:
            optimizer_variables: values of `variables`. grads: one gradient for each weight.
            trainable_variables: values of the variables of `build`.

        Raises:
            ValueError: not built, or another number of values.
        """
        if not self.built:
            raise ValueError(
                f"To call `stateless_apply`, {type(self).__name__} must be built (i.e. its variables must have been "
                "created). You can build it via `optimizer.build(trainable_variables)`."
            )
        own, weights = self.variables, self._trainable_variables
        if len(optimizer_variables) != len(own):
            raise ValueError(
                "Argument `optimizer_variables` must be a list of tensors corresponding 1:1 to "
                f"{type(self).__name__}().variables. Received list with length {len(optimizer_variables)}, but expected "
                f"{len(own)} variables."
            )
        if len(trainable_variables) != len(weights):
            raise ValueError(
                "Argument `trainable_variables` must be a list of tensors corresponding 1:1 to the trainable variables "
                f"list that the optimizer was built with. Received len(trainable_variables) == "
                f"{len(trainable_variables)} whereas the optimizer was built with {len(weights)} variables."
            )
        mapping = [*zip(weights, trainable_variables, strict=True), *zip(own, optimizer_variables, strict=True)]
        with ValueScope(mapping) as values:
            self.apply(grads)
        return [values.value(v) for v in weights], [values.value(v) for v in own]

    def _known(self, grads, trainable_variables) -> list[Variable]:
        if trainable_variables is None:
            if not self.built:
                raise ValueError(
                    "When passing `grads` without `variables`, the optimizer must already be built on a list of "
                    "variables. Call `optimizer.build(trainable_variables)` first."
                )
            if len(grads) != len(self._trainable_variables):
                raise ValueError(
                    "When passing `grads` as a list of gradient tensors, the gradients must match "
                    f"`optimizer.variables` one-to-one. Received a list of {len(grads)} gradients, but the optimizer is "
                    f"tracking {len(self._trainable_variables)} trainable variables."
                )
            return self._trainable_variables
        variables = list(trainable_variables)
        if not self.built:
            self.build(variables)
        for variable in variables:
            if id(variable) not in self._index:
                raise ValueError(
                    f"Unknown variable: {variable}. This optimizer can only be called for the variables it was "
                    "originally built with. When working with a new set of variables, you should recreate a new "
                    "optimizer instance."
                )
        return variables

    def _average_the_rest(self, done: set[int], iteration) -> None:
        """Moving averages of the variables that had no gradient."""
        steps = ops.floor_divide(iteration, self.gradient_accumulation_steps or 1)
        for variable, name, index in self._slots:
            if name == "average" and id(weight := self._trainable_variables[index]) not in done:
                value, average = averaged(self, ops.convert_to_tensor(weight), ops.convert_to_tensor(variable), steps)
                weight.assign(value)
                variable.assign(average)

    def _after_steps(self) -> None:
        """Brings variables up to date that are a function of the iteration."""

    def update_step(self, gradient, variable, learning_rate) -> None:
        """One step of one variable, Keras-style; to be overridden together with `build`."""
        index = self._get_variable_index(variable)
        own = {name: v for v, name, i in self._slots if i == index and name in dict(self.slots)}
        values = {name: ops.reshape(v, (-1,)) for name, v in own.items()}
        places = places_of([variable])
        more = (Segments(places, segment_of(places), lambda x: x),) if self.uses_segments else ()
        flat, step = ops.reshape(variable, (-1,)), ops.convert_to_tensor(self.iterations)
        param, values = self.update(flat, ops.reshape(gradient, (-1,)), values, learning_rate, step, *more)
        variable.assign(ops.reshape(param, tuple(variable.shape)))
        for name, v in own.items():
            v.assign(ops.reshape(values[name], tuple(v.shape)))

    def assign(self, variable, value) -> None:
        """Sets a variable; for `update_step`."""
        variable.assign(value)

    def assign_add(self, variable, value) -> None:
        """Adds to a variable; for `update_step`."""
        variable.assign_add(value)

    def assign_sub(self, variable, value) -> None:
        """Subtracts from a variable; for `update_step`."""
        variable.assign_sub(value)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """At the end of training: weights become their moving averages, if these are kept."""
        if not self.use_ema:
            return
        averages = {index: v for v, name, index in self._slots if name == "average"}
        for variable in var_list:
            variable.assign(ops.convert_to_tensor(averages[self._get_variable_index(variable)]))

    # --- configuration and files ---

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets `variables` from arrays in their order.

        Raises:
            ValueError: not built, or an array of another shape.
        """
        if not self.built:
            raise ValueError(
                "You are calling `set_weights()` on an optimizer that has not yet been built. Please call "
                "`optimizer.build(trainable_variables)` to create the optimizer weights before calling `set_weights()`."
            )
        for variable, weight in zip(self._variables, weights, strict=False):
            if tuple(variable.shape) != tuple(np.shape(weight)):
                raise ValueError(
                    f"Optimizer variable {variable.path} has shape {tuple(variable.shape)} not compatible with provided "
                    f"weight shape {tuple(np.shape(weight))}."
                )
            variable.assign(weight)

    def save_own_variables(self, store) -> None:
        """Puts `variables` into a mapping under "0", "1", ..."""
        for i, variable in enumerate(self.variables):
            store[str(i)] = variable.numpy()

    def load_own_variables(self, store) -> None:
        """Sets `variables` from such a mapping; warns and does nothing when their number differs."""
        variables = self.variables
        if len(store.keys()) != len(variables):
            warnings.warn(
                f"Skipping variable loading for optimizer '{self.name}', because it has {len(variables)} variables "
                f"whereas the saved optimizer has {len(store.keys())} variables. ",
                stacklevel=2,
            )
            return
        for i, variable in enumerate(variables):
            variable.assign(np.asarray(store[str(i)]))

    def get_config(self) -> dict:
        """Its arguments, as Keras writes them."""
        from ..saving.serialization import serialize_keras_object

        rate = self._learning_rate
        if isinstance(rate, Variable):
            rate = float(rate.numpy())
        elif isinstance(rate, schedules.LearningRateSchedule):
            rate = schedules.serialize(rate)
        else:
            rate = serialize_keras_object(rate)
        config = {"name": self.name, "learning_rate": rate}
        for argument in (
            "weight_decay", "clipnorm", "global_clipnorm", "clipvalue", "use_ema", "ema_momentum",
            "ema_overwrite_frequency", "loss_scale_factor", "gradient_accumulation_steps",
        ):  # fmt: skip
            config[argument] = getattr(self, argument)
        return config

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> Optimizer:
        config = dict(config)
        if isinstance(config.get("learning_rate"), dict):
            from ..saving.serialization import deserialize_keras_object

            config["learning_rate"] = deserialize_keras_object(config["learning_rate"], custom_objects)
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"
