"""Learning-rate schedules: the rate as a function of the number of steps made, in a graph or on numbers.

Steps count from 0 (the first step sees 0). All formulas are in float32, as in Keras.
"""

from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..identifiers import Family


class LearningRateSchedule:
    """Base class: override ``__call__(step)`` with `kerasoft.ops`, and `get_config`.

    >>> import kerasoft as ks
    >>> class Halving(ks.optimizers.schedules.LearningRateSchedule):
    ...     def __call__(self, step):
    ...         return 0.1 * ks.ops.power(0.5, ks.ops.cast(step, "float32"))
    >>> optimizer = ks.optimizers.SGD(Halving())
    """

    def __call__(self, step):
        raise NotImplementedError(
            f"Learning rate schedule '{type(self).__name__}' must override `__call__(self, step)`."
        )

    def get_config(self) -> dict:
        raise NotImplementedError(
            f"Learning rate schedule '{type(self).__name__}' must override `get_config()` in order to be serializable."
        )

    @classmethod
    def from_config(cls, config: dict) -> LearningRateSchedule:
        return cls(**config)


class _Schedule(LearningRateSchedule):
    """A schedule of this library: keeps its arguments as attributes."""

    def __init__(self, **arguments: Any):
        for name in ("decay_steps", "first_decay_steps"):
            if name in arguments and arguments[name] <= 0:
                raise ValueError(f"Argument `{name}` must be > 0. Received: {name}={arguments[name]}")
        self._arguments = arguments
        self.__dict__.update(arguments)

    def get_config(self) -> dict:
        return dict(self._arguments)


def _as_float(step):
    return ops.cast(ops.convert_to_tensor(step), "float32")


class ExponentialDecay(_Schedule):
    """initial * rate^(step / decay_steps); with `staircase` the exponent is rounded down.

    >>> import kerasoft as ks
    >>> round(float(ks.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)(20)), 6)
    0.025
    """

    def __init__(self, initial_learning_rate, decay_steps, decay_rate, staircase=False, name="ExponentialDecay"):
        super().__init__(
            initial_learning_rate=initial_learning_rate,
            decay_steps=decay_steps,
            decay_rate=decay_rate,
            staircase=staircase,
            name=name,
        )

    def __call__(self, step):
        p = _as_float(step) / float(self.decay_steps)
        return self.initial_learning_rate * ops.power(self.decay_rate, ops.floor(p) if self.staircase else p)


class PiecewiseConstantDecay(_Schedule):
    """values[0] up to and including step boundaries[0], values[1] up to boundaries[1], ..., values[-1] after.

    Raises:
        ValueError: not one value more than boundaries.
    """

    def __init__(self, boundaries, values, name="PiecewiseConstant"):
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                "The length of boundaries should be 1 less than the length of values. Received: "
                f"boundaries={boundaries} of length {len(boundaries)}, and values={values} of length {len(values)}."
            )
        super().__init__(boundaries=boundaries, values=values, name=name)

    def __call__(self, step):
        step = ops.convert_to_tensor(step)
        whole = "float" not in str(step.dtype)
        rate = ops.cast(ops.convert_to_tensor(self.values[-1]), "float32")
        for boundary, value in reversed(list(zip(self.boundaries, self.values[:-1], strict=True))):
            rate = ops.where(ops.less_equal(step, int(boundary) if whole else boundary), float(value), rate)
        return rate


class PolynomialDecay(_Schedule):
    """From `initial` to `end` in `decay_steps` steps as (1 - step / decay_steps)^power, then `end`.

    With `cycle` the steps are stretched to the next multiple of `decay_steps` each time the end is reached.
    """

    def __init__(
        self,
        initial_learning_rate,
        decay_steps,
        end_learning_rate=0.0001,
        power=1.0,
        cycle=False,
        name="PolynomialDecay",
    ):
        super().__init__(
            initial_learning_rate=initial_learning_rate,
            decay_steps=decay_steps,
            end_learning_rate=end_learning_rate,
            power=power,
            cycle=cycle,
            name=name,
        )

    def __call__(self, step):
        step, length = _as_float(step), float(self.decay_steps)
        if self.cycle:
            p = step / (length * ops.where(ops.equal(step, 0.0), 1.0, ops.ceil(step / length)))
        else:
            p = ops.minimum(step, length) / length
        start, end = self.initial_learning_rate, self.end_learning_rate
        return (start - end) * ops.power(1.0 - p, float(self.power)) + end


class InverseTimeDecay(_Schedule):
    """initial / (1 + rate * step / decay_steps); with `staircase` the quotient is rounded down."""

    def __init__(self, initial_learning_rate, decay_steps, decay_rate, staircase=False, name="InverseTimeDecay"):
        super().__init__(
            initial_learning_rate=initial_learning_rate,
            decay_steps=decay_steps,
            decay_rate=decay_rate,
            staircase=staircase,
            name=name,
        )

    def __call__(self, step):
        p = _as_float(step) / float(self.decay_steps)
        return self.initial_learning_rate / (1.0 + self.decay_rate * (ops.floor(p) if self.staircase else p))


class CosineDecay(_Schedule):
    """Half a cosine from the start (or `warmup_target`) down to `alpha` times it, after a linear warm-up.

    Args:
        initial_learning_rate: rate at step 0.
        decay_steps: steps of the cosine.
        alpha: last rate as a fraction of the first.
        warmup_target: rate at the end of the warm-up; None for no warm-up.
        warmup_steps: steps of the warm-up.

    Source: Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, equation 5.
    """

    def __init__(
        self, initial_learning_rate, decay_steps, alpha=0.0, name="CosineDecay", warmup_target=None, warmup_steps=0
    ):
        super().__init__(
            initial_learning_rate=initial_learning_rate,
            decay_steps=decay_steps,
            alpha=alpha,
            name=name,
            warmup_target=warmup_target,
            warmup_steps=warmup_steps,
        )

    def __call__(self, step):
        step, length = _as_float(step), float(self.decay_steps)
        if self.warmup_target is None:
            return self._cosine(ops.minimum(step, length) / length, self.initial_learning_rate)
        warmup = float(self.warmup_steps)
        step = ops.minimum(step, length + warmup)
        cosine = self._cosine((step - warmup) / length, self.warmup_target)
        if not warmup:
            return cosine
        start = self.initial_learning_rate
        return ops.where(ops.less(step, warmup), (self.warmup_target - start) * (step / warmup) + start, cosine)

    def _cosine(self, fraction, start):
        return start * ((1.0 - self.alpha) * (0.5 * (1.0 + ops.cos(math.pi * fraction))) + self.alpha)


class CosineDecayRestarts(_Schedule):
    """Cosine periods one after the other, each `t_mul` times longer and `m_mul` times as high.

    Source: Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts.
    """

    def __init__(self, initial_learning_rate, first_decay_steps, t_mul=2.0, m_mul=1.0, alpha=0.0, name="SGDRDecay"):
        super().__init__(
            initial_learning_rate=initial_learning_rate,
            first_decay_steps=first_decay_steps,
            t_mul=t_mul,
            m_mul=m_mul,
            alpha=alpha,
            name=name,
        )

    def __call__(self, step):
        done = _as_float(step) / float(self.first_decay_steps)
        if self.t_mul == 1.0:
            restarts = ops.floor(done)
            done = done - restarts
        else:
            restarts = ops.floor(ops.log(1.0 - done * (1.0 - self.t_mul)) / math.log(self.t_mul))
            stretched = ops.power(self.t_mul, restarts)
            done = (done - (1.0 - stretched) / (1.0 - self.t_mul)) / stretched
        height = 0.5 * ops.power(float(self.m_mul), restarts) * (1.0 + ops.cos(math.pi * done))
        return self.initial_learning_rate * ((1.0 - self.alpha) * height + self.alpha)


class WarmUp(_Schedule):
    """A linear rise before a rate or a schedule. Not in Keras (whose `CosineDecay` has its own).

    At step s < `warmup_steps` the rate is start + (target - start) s / warmup_steps, target being the first rate of the
    schedule; from then on the schedule is asked with s - `warmup_steps`.

    Args:
        learning_rate: a float or a `LearningRateSchedule`.
        warmup_steps: steps of the rise, above 0.
        warmup_start: rate at step 0.

    >>> import kerasoft as ks
    >>> rise = ks.optimizers.schedules.WarmUp(0.5, warmup_steps=4)
    >>> [float(rise(step)) for step in (0, 1, 4, 9)]
    [0.0, 0.125, 0.5, 0.5]
    """

    def __init__(self, learning_rate, warmup_steps, warmup_start=0.0, name="WarmUp"):
        if warmup_steps <= 0:
            raise ValueError(f"Argument `warmup_steps` must be > 0. Received: warmup_steps={warmup_steps}")
        super().__init__(learning_rate=learning_rate, warmup_steps=warmup_steps, warmup_start=warmup_start, name=name)

    def __call__(self, step):
        step, length = _as_float(step), float(self.warmup_steps)
        rate = self.learning_rate if callable(self.learning_rate) else lambda _: self.learning_rate
        rise = (rate(0.0) - self.warmup_start) * (step / length) + self.warmup_start
        return ops.where(ops.less(step, length), rise, rate(ops.maximum(step - length, 0.0)))

    def get_config(self) -> dict:
        from ..saving.serialization import serialize_keras_object

        return {**super().get_config(), "learning_rate": serialize_keras_object(self.learning_rate)}

    @classmethod
    def from_config(cls, config: dict) -> WarmUp:
        rate = config["learning_rate"]
        return cls(**{**config, "learning_rate": deserialize(rate) if isinstance(rate, dict) else rate})


CLASSES = (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
    WarmUp,
)
_FAMILY = Family("learning-rate schedule", CLASSES)
__all__ = ["LearningRateSchedule", "deserialize", "serialize", *(cls.__name__ for cls in CLASSES)]


def serialize(learning_rate_schedule: Any) -> Any:
    """The config of a schedule, as Keras writes it."""
    return _FAMILY.serialize(learning_rate_schedule)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """The schedule of a config made by `serialize`."""
    return _FAMILY.deserialize(config, custom_objects)
