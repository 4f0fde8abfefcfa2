"""Adafactor: second moments as a product of rows and columns."""

from __future__ import annotations

from .. import ops
from ..variables import Variable
from .base import Optimizer


class Adafactor(Optimizer):
    """Steps g / sqrt(v), clipped and scaled to the size of the weight; v from the means of g^2 over rows and columns.

    Weights of rank 0 and 1 keep v itself; of higher ranks the last two axes are factored.

    Args:
        beta_2_decay: the decay of the means at step t is 1 - t^beta_2_decay.
        epsilon_1: added to g^2.
        epsilon_2: smallest size of a weight.
        clip_threshold: largest root mean square of a step before scaling.
        relative_step: whether the rate is at most 1 / sqrt(t) for a constant learning rate.

    Source: Shazeer and Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, algorithms 4 and 5.
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_2_decay=-0.8,
        epsilon_1=1e-30,
        epsilon_2=0.001,
        clip_threshold=1.0,
        relative_step=True,
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
        self.beta_2_decay = beta_2_decay
        self.epsilon_1 = epsilon_1
        self.epsilon_2 = epsilon_2
        self.clip_threshold = clip_threshold
        self.relative_step = relative_step

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._rows, self._columns, self._squares = [], [], []
        for index, variable in enumerate(variables):
            shape = tuple(variable.shape)
            for slot, kept, part in (
                ("rows", self._rows, shape[:-1]),
                ("columns", self._columns, shape[:-2] + shape[-1:]),
            ):
                if len(shape) >= 2:
                    kept.append(self._add(part, "zeros", variable.name, index, variable.dtype, slot))
                else:  # never used; Keras keeps their place in files
                    kept.append(Variable(0, dtype="int32", trainable=False, name=variable.name))
                    self._variables.append(kept[-1])
            self._squares.append(self.add_variable_from_reference(variable, "velocity"))

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        rows, columns, squares = self._rows[index], self._columns[index], self._squares[index]
        weight = ops.convert_to_tensor(variable)
        t = ops.cast(ops.convert_to_tensor(self.iterations), "float32") + 1.0
        bound = 1.0 / ops.sqrt(t)
        rate = ops.minimum(learning_rate, bound)  # `relative_step` changes nothing, as in Keras
        alpha = ops.maximum(self.epsilon_2, _root_mean_square(weight)) * rate
        square = ops.square(gradient) + self.epsilon_1
        beta = 1.0 - ops.power(t, self.beta_2_decay)
        if len(variable.shape) >= 2:
            rows.assign(beta * rows + (1.0 - beta) * ops.mean(square, axis=-1))
            columns.assign(beta * columns + (1.0 - beta) * ops.mean(square, axis=-2))
            r, c = ops.convert_to_tensor(rows), ops.convert_to_tensor(columns)
            v = ops.expand_dims(r / ops.mean(r, axis=-1, keepdims=True), -1) * ops.expand_dims(c, -2)
        else:
            v = beta * squares + (1.0 - beta) * square
        squares.assign(v)
        step = gradient / ops.sqrt(v)
        step = step / ops.maximum(1.0, _root_mean_square(step) / self.clip_threshold)
        variable.assign(weight - alpha * step)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "beta_2_decay": self.beta_2_decay,
            "epsilon_1": self.epsilon_1,
            "epsilon_2": self.epsilon_2,
            "clip_threshold": self.clip_threshold,
            "relative_step": self.relative_step,
        }


def _root_mean_square(x):
    return ops.sqrt(ops.mean(ops.square(x)))
