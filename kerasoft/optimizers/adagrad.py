"""Adagrad and Adadelta: step sizes from all squared gradients so far."""

from __future__ import annotations

from .. import ops
from .base import Optimizer
from .idle import still


class Adagrad(Optimizer):
    """a <- a + g^2, w <- w - lr g / sqrt(a + epsilon).

    Args:
        initial_accumulator_value: first a.

    Source: Duchi et al., Adaptive Subgradient Methods for Online Learning and Stochastic Optimization.
    """

    def __init__(
        self,
        learning_rate=0.001,
        initial_accumulator_value=0.1,
        epsilon=1e-07,
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
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon

    @property
    def slot_groups(self):
        return ((("accumulator", self.initial_accumulator_value),),)

    def update(self, param, gradient, slots, learning_rate, iteration):
        total = slots["accumulator"] + ops.square(gradient)
        return param - gradient * learning_rate / ops.sqrt(total + self.epsilon), {"accumulator": total}

    def idle(self, decay):
        return still(decay)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "initial_accumulator_value": self.initial_accumulator_value,
            "epsilon": self.epsilon,
        }


class Adadelta(Optimizer):
    """Adagrad with moving means, and steps in the unit of the weights.

    Source: Zeiler, ADADELTA: An Adaptive Learning Rate Method, algorithm 1.
    """

    def __init__(
        self,
        learning_rate=0.001,
        rho=0.95,
        epsilon=1e-07,
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
        self.rho = rho
        self.epsilon = epsilon

    @property
    def slot_groups(self):
        return ((("accumulated_grad", 0.0), ("accumulated_delta_var", 0.0)),)

    def update(self, param, gradient, slots, learning_rate, iteration):
        rho, moved = self.rho, slots["accumulated_delta_var"]
        squares = rho * slots["accumulated_grad"] + (1.0 - rho) * ops.square(gradient)
        delta = -(ops.sqrt(moved + self.epsilon) * gradient / ops.sqrt(squares + self.epsilon))
        moved = rho * moved + (1.0 - rho) * ops.square(delta)
        return param + learning_rate * delta, {"accumulated_grad": squares, "accumulated_delta_var": moved}

    def idle(self, decay):
        return still(decay, {"accumulated_grad": self.rho, "accumulated_delta_var": self.rho})

    def get_config(self) -> dict:
        return {**super().get_config(), "rho": self.rho, "epsilon": self.epsilon}
