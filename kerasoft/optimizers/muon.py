"""Muon: orthogonal steps for matrices, Adam's for the rest."""

from __future__ import annotations

import math
import re

from .. import ops
from .base import Optimizer


class Muon(Optimizer):
    """Momentum, made orthogonal by Newton-Schulz iterations; Adam for all that is no matrix.

    Adam moves weights whose rank is not 2, those of embeddings (by their path) and those whose path matches one of
    `exclude_layers`.

    Args:
        adam_beta_1, adam_beta_2, epsilon: Adam's.
        adam_weight_decay: decay of the weights that Adam moves; `weight_decay` is that of the others.
        exclude_layers: regular expressions of paths that Adam moves.
        exclude_embeddings: whether Adam moves weights with "embedding" in their path.
        muon_a, muon_b, muon_c: coefficients of the iteration's quintic polynomial.
        adam_lr_ratio: Adam's learning rate over `learning_rate`.
        momentum: decay of the momentum.
        ns_steps: number of Newton-Schulz iterations.
        nesterov: whether the step looks ahead along the momentum.
        rms_rate: steps are scaled by this times the root of the larger size; None: they are not.

    Source: Jordan et al., Muon; Liu et al., Muon is Scalable for LLM Training, section 2.2.
    """

    def __init__(
        self,
        learning_rate=0.001,
        adam_beta_1=0.9,
        adam_beta_2=0.999,
        adam_weight_decay=0.004,
        epsilon=1e-07,
        weight_decay=0.004,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        use_ema=False,
        ema_momentum=0.99,
        ema_overwrite_frequency=None,
        loss_scale_factor=None,
        gradient_accumulation_steps=None,
        name=None,
        exclude_layers=None,
        exclude_embeddings=True,
        muon_a=3.4445,
        muon_b=-4.775,
        muon_c=2.0315,
        adam_lr_ratio=1,
        momentum=0.95,
        ns_steps=5,
        nesterov=True,
        rms_rate=0.2,
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
        self.adam_beta_1 = adam_beta_1
        self.adam_beta_2 = adam_beta_2
        self.adam_weight_decay = adam_weight_decay
        self.epsilon = epsilon
        self.exclude_layers = exclude_layers or []
        self.exclude_embeddings = exclude_embeddings
        self.muon_a, self.muon_b, self.muon_c = muon_a, muon_b, muon_c
        self.adam_lr_ratio = adam_lr_ratio
        self.momentum = momentum
        self.ns_steps = ns_steps
        self.nesterov = nesterov
        self.rms_rate = rms_rate

    def _should_use_adamw(self, variable) -> bool:
        if len(variable.shape) != 2 or (self.exclude_embeddings and "embedding" in variable.path.lower()):
            return True
        return any(re.search(pattern, variable.path) for pattern in self.exclude_layers)

    def _decay_of(self, variable):
        decay = self.adam_weight_decay if self._should_use_adamw(variable) else self.weight_decay
        return decay if self._use_weight_decay(variable) else None

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.momentums, self.adam_velocities = [], []
        for variable in variables:
            self.momentums.append(self.add_variable_from_reference(variable, "momentum"))
            adam = self._should_use_adamw(variable)
            self.adam_velocities.append(self.add_variable_from_reference(variable, "velocity") if adam else None)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        momentum, velocity = self.momentums[index], self.adam_velocities[index]
        if velocity is not None:
            self._adam_step(gradient, variable, learning_rate * self.adam_lr_ratio, momentum, velocity)
            return
        m = gradient + momentum * self.momentum
        momentum.assign(m)
        step = learning_rate * self.zeropower_via_newtonschulz5(
            gradient + self.momentum * m if self.nesterov else m, self.ns_steps
        )
        variable.assign(variable - self.lr_adjust(step))

    def lr_adjust(self, x):
        """A step for a matrix times `rms_rate` and the root of its larger size."""
        return x if self.rms_rate is None else x * (math.sqrt(max(x.shape)) * self.rms_rate)

    def _adam_step(self, gradient, variable, learning_rate, momentum, velocity):
        t = ops.cast(ops.convert_to_tensor(self.iterations), "float32") + 1.0
        b1, b2 = self.adam_beta_1, self.adam_beta_2
        alpha = learning_rate * ops.sqrt(1.0 - ops.power(b2, t)) / (1.0 - ops.power(b1, t))
        m = momentum + (gradient - momentum) * (1.0 - b1)
        v = velocity + (ops.square(gradient) - velocity) * (1.0 - b2)
        momentum.assign(m)
        velocity.assign(v)
        variable.assign(variable - m * alpha / (ops.sqrt(v) + self.epsilon))

    def zeropower_via_newtonschulz5(self, x, steps: int):
        """About U V^T for x = U S V^T: singular values brought near 1 by an odd polynomial of degree 5.

        Raises:
            ValueError: x is no matrix.
        """
        if len(x.shape) != 2:
            raise ValueError(
                f"Expected gradient or momentum to have at least 2 dimensions. Received: shape={tuple(x.shape)}"
            )
        tall = x.shape[0] > x.shape[1]
        x = ops.transpose(x) if tall else x
        x = x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-7)
        for _ in range(steps):
            square = ops.matmul(x, ops.transpose(x))
            x = self.muon_a * x + ops.matmul(self.muon_b * square + ops.matmul(self.muon_c * square, square), x)
        return ops.transpose(x) if tall else x

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "adam_beta_1": self.adam_beta_1,
            "adam_beta_2": self.adam_beta_2,
            "epsilon": self.epsilon,
            "exclude_layers": self.exclude_layers,
            "muon_a": self.muon_a,
            "muon_b": self.muon_b,
            "muon_c": self.muon_c,
            "adam_lr_ratio": self.adam_lr_ratio,
            "momentum": self.momentum,
            "ns_steps": self.ns_steps,
            "nesterov": self.nesterov,
            "exclude_embeddings": self.exclude_embeddings,
            "adam_weight_decay": self.adam_weight_decay,
            "rms_rate": self.rms_rate,
        }
