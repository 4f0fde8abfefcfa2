"""Adam and its kin: first and second moments of the gradient."""

from __future__ import annotations

import dataclasses

import numpy as np

from .. import ops
from ..compiler.ops.optimizers import adam
from ..variables import Variable
from .base import Optimizer
from .idle import AdamSteps, nodes, scaled

_DECAYS = np.cumprod([1.0, *(1.0 - 0.5 * 0.96**i for i in range(1, 1024))]).astype(np.float32)


def _count(iteration):
    """The number of this step from 1, float32."""
    return ops.cast(ops.convert_to_tensor(iteration), "float32") + 1.0


def _moved(average, value, beta):
    """beta average + (1 - beta) value."""
    return average + (value - average) * (1.0 - beta)


class Adam(Optimizer):
    """w <- w - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon).

    Args:
        beta_1, beta_2: decay of the first and second moment.
        epsilon: added to sqrt(v), which is not bias-corrected ("epsilon hat").
        amsgrad: whether v is its largest value so far.

    Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, section 2.
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-07,
        amsgrad=False,
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
        self.amsgrad = amsgrad

    @property
    def slot_groups(self):
        groups = ((("momentum", 0.0), ("velocity", 0.0)),)
        return (*groups, (("velocity_hat", 0.0),)) if self.amsgrad else groups

    def _alpha(self, learning_rate, iteration):
        t = _count(iteration)
        return learning_rate * ops.sqrt(1.0 - ops.power(self.beta_2, t)) / (1.0 - ops.power(self.beta_1, t))

    def update(self, param, gradient, slots, learning_rate, iteration):
        alpha = self._alpha(learning_rate, iteration)
        if not self.amsgrad:
            m, v = slots["momentum"], slots["velocity"]
            param, m, v = adam(param, gradient, m, v, alpha, self.beta_1, self.beta_2, self.epsilon)
            return param, {"momentum": m, "velocity": v}
        m = _moved(slots["momentum"], gradient, self.beta_1)
        v = _moved(slots["velocity"], ops.square(gradient), self.beta_2)
        most = ops.maximum(slots["velocity_hat"], v)
        new = {"momentum": m, "velocity": v, "velocity_hat": most}
        return param - m * alpha / (ops.sqrt(most) + self.epsilon), new

    def idle(self, decay):
        shrink, slot = (1.0, "velocity_hat") if self.amsgrad else (self.beta_2**0.5, "velocity")
        fading = {"momentum": self.beta_1, "velocity": self.beta_2}
        found = scaled(
            decay, self._alpha, self.beta_1, shrink, self.epsilon, lambda slots: ops.sqrt(slots[slot]), fading
        )
        if isinstance(found, str) or self.amsgrad or type(self).update is not Adam.update:
            return found
        scales = tuple(float(shrink**place) for place in nodes(self.beta_1, shrink)[0])
        return dataclasses.replace(found, adam=AdamSteps(self.beta_1, self.beta_2, self.epsilon, self._alpha, scales))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "amsgrad": self.amsgrad,
        }


class AdamW(Adam):
    """Adam with weight decay: w <- w - lr weight_decay w before each step.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization.
    """

    def __init__(
        self,
        learning_rate=0.001,
        weight_decay=0.004,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-07,
        amsgrad=False,
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
        if weight_decay is None:
            raise ValueError("Argument `weight_decay` must be a float. Received: weight_decay=None")
        super().__init__(
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            amsgrad,
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


class Adamax(Optimizer):
    """Adam with the largest gradient so far (decaying) for the second moment.

    Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, section 7.1.
    """

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
        return ((("momentum", 0.0), ("norm", 0.0)),)

    def update(self, param, gradient, slots, learning_rate, iteration):
        m = _moved(slots["momentum"], gradient, self.beta_1)
        u = ops.maximum(slots["norm"] * self.beta_2, ops.abs(gradient))
        scale = 1.0 - ops.power(self.beta_1, _count(iteration))
        return param - m * learning_rate / (scale * (u + self.epsilon)), {"momentum": m, "norm": u}

    def idle(self, decay):
        def rate(learning_rate, iteration):
            return learning_rate / (1.0 - ops.power(self.beta_1, _count(iteration)))

        fading = {"momentum": self.beta_1, "norm": self.beta_2}
        return scaled(decay, rate, self.beta_1, self.beta_2, self.epsilon, lambda slots: slots["norm"], fading)

    def get_config(self) -> dict:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


class Nadam(Optimizer):
    """Adam with Nesterov momentum.

    Source: Dozat, Incorporating Nesterov Momentum into Adam.
    """

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

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        product = Variable(1.0, dtype="float32", trainable=False)
        object.__setattr__(self, "_product", product)  # a function of the iteration: no slot of a step
        self._variables.append(product)

    def _after_steps(self):
        steps = ops.floor_divide(self._iterations, self.gradient_accumulation_steps or 1)
        self._product.assign(self._momentum_product(ops.cast(steps, "float32")))

    def _momentum_product(self, t):
        """prod_{i=1..t} b1 (1 - 0.96^i / 2), as b1^t times a table that has converged at its end."""
        known = ops.take(_DECAYS, ops.cast(ops.minimum(t, float(len(_DECAYS) - 1)), "int32"), axis=0)
        return ops.power(self.beta_1, t) * known

    def update(self, param, gradient, slots, learning_rate, iteration):
        t = _count(iteration)
        now = self.beta_1 * (1.0 - 0.5 * ops.power(0.96, t))
        after = self.beta_1 * (1.0 - 0.5 * ops.power(0.96, t + 1.0))
        product = self._momentum_product(t)
        m = _moved(slots["momentum"], gradient, self.beta_1)
        v = _moved(slots["velocity"], ops.square(gradient), self.beta_2)
        m_hat = m * (after / (1.0 - product * after)) + gradient * ((1.0 - now) / (1.0 - product))
        v_hat = v / (1.0 - ops.power(self.beta_2, t))
        step = m_hat * learning_rate / (ops.sqrt(v_hat) + self.epsilon)
        return param - step, {"momentum": m, "velocity": v}

    def idle(self, decay):
        return "Nadam corrects the second moment's bias within the root, so that early steps have no common scale"

    def get_config(self) -> dict:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
