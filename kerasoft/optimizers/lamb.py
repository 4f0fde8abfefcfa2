"""LAMB and LARS: step sizes from the norms of each weight and of its step, for large batches."""

from __future__ import annotations

import numpy as np

from .. import ops
from .base import Optimizer


def _ratio(above, below):
    """above / below, 1 where one of them is 0."""
    both = ops.logical_and(ops.greater(above, 0.0), ops.greater(below, 0.0))
    return ops.where(both, above / ops.where(both, below, 1.0), 1.0)


class Lamb(Optimizer):
    """Adam's bias-corrected step, scaled to the norm of the weight that it moves.

    Args:
        beta_1, beta_2: decay of the first and second moment.
        epsilon: added to the root of the corrected second moment.

    Source: You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes, algorithm 2.
    """

    uses_segments = True

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
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
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    @property
    def slot_groups(self):
        return ((("momentum", 0.0), ("velocity", 0.0)),)

    def update(self, param, gradient, slots, learning_rate, iteration, segments):
        t = ops.cast(ops.convert_to_tensor(iteration), "float32") + 1.0
        m = slots["momentum"] + (gradient - slots["momentum"]) * (1.0 - self.beta_1)
        v = slots["velocity"] + (ops.square(gradient) - slots["velocity"]) * (1.0 - self.beta_2)
        root = ops.sqrt(v / (1.0 - ops.power(self.beta_2, t))) + self.epsilon
        step = m / (1.0 - ops.power(self.beta_1, t)) / root
        ratio = _ratio(segments.norms(param), segments.norms(step))
        return param - ratio * learning_rate * step, {"momentum": m, "velocity": v}

    def get_config(self) -> dict:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


class LARS(Optimizer):
    """v <- mu v + lr r (g + decay w), w <- w - v, with r = trust |w| / (|g| + decay |w|) for each weight.

    Not in Keras. `weight_decay` is the paper's: part of the gradient, not decoupled. Where |w| or |g| is 0, r is 1.

    Args:
        momentum: mu, a float in [0, 1].
        trust_coefficient: how far a step may go, as a fraction of the weight's norm.
        epsilon: added to the divisor of r.
        nesterov: whether the step looks ahead along the momentum.

    Source: You, Gitman and Ginsburg, Large Batch Training of Convolutional Networks (2017), algorithm 1.

    >>> import kerasoft as ks
    >>> weight = ks.Variable([3.0, 4.0], name="w")
    >>> ks.optimizers.LARS(1.0, momentum=0.0, trust_coefficient=0.1).apply([[1.0, 0.0]], [weight])
    >>> weight.numpy().tolist()
    [2.5, 4.0]
    """

    uses_segments = True

    def __init__(
        self,
        learning_rate=0.01,
        momentum=0.9,
        trust_coefficient=0.001,
        epsilon=0.0,
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
        if not 0 <= momentum <= 1:
            raise ValueError(f"`momentum` must be a float between [0, 1]. Received: momentum={momentum}")
        self.momentum = momentum
        self.trust_coefficient = trust_coefficient
        self.epsilon = epsilon
        self.nesterov = nesterov

    @property
    def slot_groups(self):
        return ((("momentum", 0.0),),)

    def _decay_of(self, variable):
        return None

    def update(self, param, gradient, slots, learning_rate, iteration, segments):
        norm, below = segments.norms(param), segments.norms(gradient)
        if self.weight_decay:
            kept = [self._use_weight_decay(place.variable) for place in segments.places]
            decay = segments.spread(np.asarray(kept, np.float32) * np.float32(self.weight_decay))
            gradient, below = gradient + decay * param, below + decay * norm
        ratio = _ratio(self.trust_coefficient * norm, below + self.epsilon)
        step = learning_rate * ratio * gradient
        v = self.momentum * slots["momentum"] + step
        return param - (self.momentum * v + step if self.nesterov else v), {"momentum": v}

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "trust_coefficient": self.trust_coefficient,
            "epsilon": self.epsilon,
            "nesterov": self.nesterov,
        }
