"""Gradient descent, with momentum and Nesterov's."""

from __future__ import annotations

from .base import Optimizer
from .idle import coasting, still


class SGD(Optimizer):
    """w <- w - lr g; with momentum m <- mu m - lr g and w <- w + m (Nesterov: w <- w + mu m - lr g).

    Args:
        momentum: mu, a float in [0, 1].
        nesterov: whether the step looks ahead along the momentum.

    >>> import kerasoft as ks
    >>> ks.optimizers.SGD(0.1, momentum=0.9).slots
    (('momentum', 0.0),)
    """

    def __init__(
        self,
        learning_rate=0.01,
        momentum=0.0,
        nesterov=False,
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
        if not isinstance(momentum, float) or not 0 <= momentum <= 1:
            raise ValueError("`momentum` must be a float between [0, 1].")
        self.momentum = momentum
        self.nesterov = nesterov

    @property
    def slot_groups(self):
        return ((("momentum", 0.0),),) if self.momentum else ()

    def update(self, param, gradient, slots, learning_rate, iteration):
        step = gradient * learning_rate
        if not self.momentum:
            return param - step, {}
        m = slots["momentum"] * self.momentum - step
        return param + (m * self.momentum - step if self.nesterov else m), {"momentum": m}

    def idle(self, decay):
        if not self.momentum:
            return still(decay)
        return coasting(decay, "momentum", self.momentum, -self.momentum if self.nesterov else -1.0, {})

    def get_config(self) -> dict:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}
