"""Lion: the sign of a moving mean."""

from __future__ import annotations

from .. import ops
from .base import Optimizer


class Lion(Optimizer):
    """w <- w - lr sign(b1 m + (1 - b1) g), m <- b2 m + (1 - b2) g.

    Source: Chen et al., Symbolic Discovery of Optimization Algorithms, algorithm 2.
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.99,
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
        if beta_1 <= 0 or beta_1 > 1:
            raise ValueError(
                "Argument `beta_1` must be in the [0, 1] range. Otherwise, the optimizer degenerates to SignSGD. "
                f"Received: beta_1={beta_1}."
            )
        self.beta_1 = beta_1
        self.beta_2 = beta_2

    @property
    def slot_groups(self):
        return ((("momentum", 0.0),),)

    def update(self, param, gradient, slots, learning_rate, iteration):
        m = slots["momentum"]
        direction = ops.sign(m * self.beta_1 + gradient * (1.0 - self.beta_1))
        return param - learning_rate * direction, {"momentum": m * self.beta_2 + gradient * (1.0 - self.beta_2)}

    def idle(self, decay):
        return "Lion moves a row by its momentum's sign for as long as that is not zero"

    def get_config(self) -> dict:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2}
