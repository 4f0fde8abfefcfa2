"""Mixed precision: the names of Keras' older namespace."""

from .config import dtype_policy, set_dtype_policy
from .dtype_policies import DTypePolicy

Policy = DTypePolicy
global_policy = dtype_policy
set_global_policy = set_dtype_policy

__all__ = ["DTypePolicy", "Policy", "dtype_policy", "global_policy", "set_dtype_policy", "set_global_policy"]


def __getattr__(name: str):
    if name == "LossScaleOptimizer":
        from . import optimizers

        return optimizers.LossScaleOptimizer
    raise AttributeError(f"module 'kerasoft.mixed_precision' has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, "LossScaleOptimizer"])
