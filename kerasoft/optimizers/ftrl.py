"""Follow the regularised leader."""

from __future__ import annotations

from .. import ops
from .base import Optimizer
from .idle import Idle


class Ftrl(Optimizer):
    """Follow the regularised leader, with l1 and l2 regularisation: sparse weights.

    Args:
        learning_rate_power: at most 0; -0.5 is the paper's.
        initial_accumulator_value: first sum of squared gradients.
        l1_regularization_strength, l2_regularization_strength: at least 0.
        l2_shrinkage_regularization_strength: decay through the gradient, at least 0.
        beta: the paper's beta.

    Source: McMahan et al., Ad Click Prediction: a View from the Trenches, algorithm 1.
    """

    def __init__(
        self,
        learning_rate=0.001,
        learning_rate_power=-0.5,
        initial_accumulator_value=0.1,
        l1_regularization_strength=0.0,
        l2_regularization_strength=0.0,
        l2_shrinkage_regularization_strength=0.0,
        beta=0.0,
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
        super().__init__(
            learning_rate,
            weight_decay,
            clipnorm,
            clipvalue,
            global_clipnorm,
            use_ema,
            ema_momentum,
            ema_overwrite_frequency,
            loss_scale_factor,
            gradient_accumulation_steps,
            name,
            **kwargs,
        )
        if initial_accumulator_value < 0.0:
            raise ValueError(
                "`initial_accumulator_value` needs to be positive or zero. Received: initial_accumulator_value="
                f"{initial_accumulator_value}."
            )
        if learning_rate_power > 0.0:
            raise ValueError(
                "`learning_rate_power` needs to be negative or zero. Received: learning_rate_power="
                f"{learning_rate_power}."
            )
        for argument, value in (
            ("l1_regularization_strength", l1_regularization_strength),
            ("l2_regularization_strength", l2_regularization_strength),
            ("l2_shrinkage_regularization_strength", l2_shrinkage_regularization_strength),
        ):
            if value < 0.0:
                raise ValueError(f"`{argument}` needs to be positive or zero. Received: {argument}={value}.")
        self.learning_rate_power = learning_rate_power
        self.initial_accumulator_value = initial_accumulator_value
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength
        self.l2_shrinkage_regularization_strength = l2_shrinkage_regularization_strength
        self.beta = beta

    @property
    def slot_groups(self):
        return ((("accumulator", self.initial_accumulator_value), ("linear", 0.0)),)

    def update(self, param, gradient, slots, learning_rate, iteration):
        power, total, linear = -self.learning_rate_power, slots["accumulator"], slots["linear"]
        l1, l2 = self.l1_regularization_strength, self.l2_regularization_strength + self.beta / (2.0 * learning_rate)
        shrunk = gradient + 2.0 * self.l2_shrinkage_regularization_strength * param
        new = total + ops.square(gradient)
        grown = ops.power(new, power)
        linear = linear + shrunk - (grown - ops.power(total, power)) / learning_rate * param
        param = (ops.clip(linear, -l1, l1) - linear) / (grown / learning_rate + 2.0 * l2)
        return param, {"accumulator": new, "linear": linear}

    def idle(self, decay):
        if self.l2_shrinkage_regularization_strength:
            return "Ftrl with l2 shrinkage moves each row's sum in every step"

        def advance(coefficients, age, learning_rate, iteration):
            return [c * 0.0 + learning_rate for c in coefficients]

        def catch_up(param, slots, coefficients, gap):
            moved = self.update(param, 0.0, slots, coefficients[0], None)[0]
            return ops.where(ops.greater(gap, 0.0), moved, param), {}

        return Idle((1.0,), advance, catch_up)  # an idle step depends on the last learning rate only

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "learning_rate_power": self.learning_rate_power,
            "initial_accumulator_value": self.initial_accumulator_value,
            "l1_regularization_strength": self.l1_regularization_strength,
            "l2_regularization_strength": self.l2_regularization_strength,
            "l2_shrinkage_regularization_strength": self.l2_shrinkage_regularization_strength,
            "beta": self.beta,
        }
