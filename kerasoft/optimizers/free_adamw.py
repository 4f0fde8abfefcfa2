"""Schedule-free AdamW: averaging in place of a schedule."""

from __future__ import annotations

from .. import ops
from .base import Optimizer


class ScheduleFreeAdamW(Optimizer):
    """z <- z - lr g / (sqrt(v_hat) + epsilon); x averages z; w = (1 - b1) z + b1 x.

    z is the slot `momentum` and starts at the weight; x is computed back from w and z.

    Args:
        beta_1: how far the weight is drawn to the average x.
        beta_2: decay of the second moment.
        epsilon: added to the root of the corrected second moment.
        warmup_steps: steps in which the learning rate grows linearly from 0.

    Source: Defazio et al., The Road Less Scheduled, algorithm 1.
    """

    def __init__(
        self,
        learning_rate=0.0025,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-08,
        warmup_steps=0,
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
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.warmup_steps = warmup_steps

    @property
    def slot_groups(self):
        return ((("momentum", 0.0), ("velocity", 0.0)),)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        for variable, name, index in self._slots:
            if name == "momentum":
                variable.assign(ops.convert_to_tensor(self._trainable_variables[index]))

    def update(self, param, gradient, slots, learning_rate, iteration):
        t = ops.cast(ops.convert_to_tensor(iteration), "float32") + 1.0
        if self.warmup_steps > 0:
            learning_rate = learning_rate * ops.minimum(t / float(self.warmup_steps), 1.0)
        z, b1, b2 = slots["momentum"], self.beta_1, self.beta_2
        x = (param - (1.0 - b1) * z) / b1
        v = slots["velocity"] + (ops.square(gradient) - slots["velocity"]) * (1.0 - b2)
        z = z - learning_rate * gradient / (ops.sqrt(v / (1.0 - ops.power(b2, t))) + self.epsilon)
        weight = 1.0 / t
        x = (1.0 - weight) * x + weight * z
        return (1.0 - b1) * z + b1 * x, {"momentum": z, "velocity": v}

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "warmup_steps": self.warmup_steps,
        }
