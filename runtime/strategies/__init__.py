"""Ways of training on a cluster, one file each."""

from .all_reduce import AllReduce
from .local_sgd import LocalSGD
from .long_lived import LongLived
from .parameter_averaging import ParameterAveraging
from .shuffle_all_reduce import ShuffleAllReduce
from .strategy import Strategy

__all__ = ["AllReduce", "LocalSGD", "LongLived", "ParameterAveraging", "ShuffleAllReduce", "Strategy"]
