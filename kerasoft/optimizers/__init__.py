"""Optimizers and learning-rate schedules; Keras' names, arguments and numbers."""

from __future__ import annotations

import inspect
from typing import Any

from ..identifiers import Family
from . import schedules
from .adafactor import Adafactor
from .adagrad import Adadelta, Adagrad
from .adam import Adam, Adamax, AdamW, Nadam
from .base import Optimizer
from .free_adamw import ScheduleFreeAdamW
from .ftrl import Ftrl
from .lamb import LARS, Lamb
from .lion import Lion
from .loss_scale import LossScaleOptimizer
from .multi_optimizer import MultiOptimizer, OptimizerMap
from .muon import Muon
from .rmsprop import RMSprop
from .sgd import SGD

CLASSES: tuple[type, ...] = (
    SGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Ftrl, LARS, Lamb, Lion, LossScaleOptimizer, MultiOptimizer,
    Muon, Nadam, OptimizerMap, RMSprop, ScheduleFreeAdamW,
)  # fmt: skip
_FAMILY = Family("optimizer", CLASSES, {cls.__name__.lower(): cls for cls in CLASSES})
__all__ = ["Optimizer", "deserialize", "get", "schedules", "serialize", *(cls.__name__ for cls in CLASSES)]


def get(identifier: Any) -> Optimizer | None:
    """The optimizer that `identifier` stands for: a name, a `serialize` config, a class or an `Optimizer`.

    Raises:
        ValueError: nothing of that name.

    >>> import kerasoft as ks
    >>> ks.optimizers.get("adam").get_config()["epsilon"]
    1e-07
    """
    found = identifier
    if isinstance(identifier, dict):
        found = deserialize(identifier)
    elif isinstance(identifier, str):
        found = _FAMILY.find(identifier) or _FAMILY.find(identifier.lower())
    if inspect.isclass(found):
        found = found()
    if found is None and identifier is None or isinstance(found, Optimizer):
        return found
    raise ValueError(f"Could not interpret optimizer identifier: {identifier}")


def serialize(optimizer: Optimizer) -> Any:
    """The config of an optimizer, as Keras writes it."""
    return _FAMILY.serialize(optimizer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Optimizer:
    """The optimizer of a config made by `serialize`, or of a name."""
    return _FAMILY.deserialize(config, custom_objects)
