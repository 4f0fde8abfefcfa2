"""RMSprop: gradients over their root mean square."""

from __future__ import annotations

from .. import ops
from .base import Optimizer
from .idle import coasting, still


class RMSprop(Optimizer):
    """w <- w - lr g / sqrt(v + epsilon), v the moving mean of g^2 (less its squared mean if `centered`).

    Args:
        rho: decay of the moving means.
        momentum: adds up the scaled steps when above 0.
        epsilon: inside the root.
        centered: whether v is the variance of the gradient.
    """

    def __init__(
        self,
        learning_rate=0.001,
        rho=0.9,
        momentum=0.0,
        epsilon=1e-07,
        centered=False,
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
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered

    @property
    def slot_groups(self):
        groups = [(("velocity", 0.0),)]
        if self.momentum > 0:
            groups.append((("momentum", 0.0),))
        if self.centered:
            groups.append((("average_gradient", 0.0),))
        return tuple(groups)

    def update(self, param, gradient, slots, learning_rate, iteration):
        rho = self.rho
        v = rho * slots["velocity"] + (1.0 - rho) * ops.square(gradient)
        new, square = {"velocity": v}, v
        if self.centered:
            mean = rho * slots["average_gradient"] + (1.0 - rho) * gradient
            new["average_gradient"], square = mean, v - ops.square(mean)
        step = gradient * learning_rate / ops.sqrt(square + self.epsilon)
        if self.momentum > 0:
            new["momentum"] = step = self.momentum * slots["momentum"] + step
        return param - step, new

    def idle(self, decay):
        fading = {"velocity": self.rho, **({"average_gradient": self.rho} if self.centered else {})}
        return coasting(decay, "momentum", self.momentum, 1.0, fading) if self.momentum > 0 else still(decay, fading)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }
