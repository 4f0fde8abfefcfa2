"""LossScaleOptimizer: another optimizer with a loss scale that adapts itself."""

from __future__ import annotations

import dataclasses

from .. import ops
from .base import Optimizer
from .step import State, flat_step, needs_segment
from .value_scope import ValueScope


class LossScaleOptimizer(Optimizer):
    """Steps of another optimizer with gradients divided by a scale; a step with gradients that are not finite is skipped.

    The scale is doubled after `dynamic_growth_steps` good steps and halved after a bad one. In `fit` gradients are
    float32 sums of a loss that is not scaled, so that there nothing overflows by scaling.

    Args:
        inner_optimizer: the optimizer that makes the steps.
        initial_scale: first scale.
        dynamic_growth_steps: good steps after which the scale is doubled.

    >>> import kerasoft as ks
    >>> optimizer = ks.optimizers.LossScaleOptimizer(ks.optimizers.SGD(0.5), initial_scale=4.0)
    >>> weight = ks.Variable([1.0], name="w")
    >>> optimizer.apply([[4.0]], [weight])
    >>> float(weight.numpy()[0])
    0.5
    """

    whole_vectors = True

    def __init__(self, inner_optimizer, initial_scale=32768.0, dynamic_growth_steps=2000, name=None, **kwargs):
        if not kwargs.pop("dynamic", True):
            raise ValueError(
                "LossScaleOptimizer no longer supports `dynamic=False`. Instead, simply set `loss_scale_factor` directly "
                "on the `inner_optimizer`."
            )
        defaults = {"use_ema": False, "ema_momentum": 0.99}
        for argument in (
            "weight_decay", "clipnorm", "global_clipnorm", "clipvalue", "use_ema", "ema_momentum",
            "ema_overwrite_frequency", "loss_scale_factor", "gradient_accumulation_steps",
        ):  # fmt: skip
            if kwargs.pop(argument, defaults.get(argument)) != defaults.get(argument):
                raise ValueError(
                    f"LossScaleOptimizer does not support `{argument}`. Instead, set `{argument}` on the "
                    "`inner_optimizer`."
                )
        if kwargs:
            raise ValueError(f"LossScaleOptimizer does not support arguments: `{'`, `'.join(kwargs)}`.")
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer
        self.initial_scale = initial_scale
        self.dynamic_growth_steps = dynamic_growth_steps
        inner_optimizer.loss_scale_factor = None  # or gradients would be scaled twice
        self._iterations = inner_optimizer._iterations

    def build(self, variables):
        if self.built:
            return
        self.step_counter = self.add_variable((), dtype="int32", name="step_counter")
        self.dynamic_scale = self.add_variable((), name="dynamic_scale")
        self.dynamic_scale.assign(self.initial_scale)
        self.inner_optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self):
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    def scale_loss(self, loss):
        """The loss times the scale."""
        return ops.multiply(loss, self.dynamic_scale if self.built else self.initial_scale)

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(list(trainable_variables))
        scale = ops.convert_to_tensor(self.dynamic_scale)
        finite = self.check_finite(grads)
        with ValueScope() as values:
            variables = trainable_variables or self._trainable_variables
            unscaled = [
                g if g is None or getattr(v, "overwrite_with_gradient", False) else ops.divide(g, scale)
                for g, v in zip(grads, variables, strict=True)
            ]
            self.inner_optimizer.apply(unscaled, trainable_variables)
        changed = values.assigned_besides()
        chosen = [(variable, ops.where(finite, value, ops.convert_to_tensor(variable))) for variable, value in changed]
        for variable, value in [*chosen, *self._scaled(finite, self.step_counter, self.dynamic_scale)]:
            variable.assign(value)

    def _scaled(self, finite, counter, scale):
        """Pairs (variable, value) of the counter and the scale after a step."""
        grows = ops.equal(counter, self.dynamic_growth_steps - 1)
        count = ops.where(ops.logical_and(finite, ops.logical_not(grows)), counter + 1, 0)
        factor = ops.where(finite, ops.where(grows, 2.0, 1.0), 0.5)
        return (self.step_counter, count), (self.dynamic_scale, scale * factor)

    def check_finite(self, grads):
        """Whether all elements of all gradients are finite numbers, bool[]."""
        finite = [ops.all(ops.isfinite(ops.convert_to_tensor(g))) for g in grads if g is not None]
        return ops.all(ops.stack(finite)) if finite else ops.convert_to_tensor(True)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    def set_weights(self, weights):
        own = len(self._variables)
        super().set_weights(weights[:own])
        self.inner_optimizer.set_weights(weights[own:])

    # --- as vectors: the inner optimizer's slots, its free variables and the scale ---

    @property
    def slots(self):
        return self.inner_optimizer.slots

    def _needs_segment(self, places):
        return needs_segment(self.inner_optimizer, places)

    def _slot_places(self, places):
        return self.inner_optimizer._slot_places(places)

    def _extras(self):
        return [self.step_counter, self.dynamic_scale, *self.inner_optimizer._extras()]

    def _after_steps(self):
        self.inner_optimizer._after_steps()

    @property
    def _learning_rate(self):
        return self.inner_optimizer._learning_rate

    @_learning_rate.setter
    def _learning_rate(self, value):
        self.__dict__["_own_rate"] = value

    def _flat_step(self, places, state, gradient, moment):
        finite = ops.all(ops.isfinite(gradient))
        own = {self.step_counter, self.dynamic_scale}
        inner = State(state.param, state.slots, {v: value for v, value in state.extras.items() if v not in own})
        after = flat_step(self.inner_optimizer, places, inner, gradient, moment).where(finite, inner)
        scaled = self._scaled(finite, state.extras[self.step_counter], state.extras[self.dynamic_scale])
        return dataclasses.replace(after, extras={**after.extras, **dict(scaled)})

    def get_config(self) -> dict:
        from ..saving.serialization import serialize_keras_object

        return {
            "name": self.name,
            "inner_optimizer": serialize_keras_object(self.inner_optimizer),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        from ..saving.serialization import deserialize_keras_object

        config = dict(config)
        return cls(deserialize_keras_object(config.pop("inner_optimizer"), custom_objects), **config)
