"""Ways of training on a cluster, one file each."""

from .all_reduce import AllReduce
from .shuffle_all_reduce import ShuffleAllReduce
from .strategy import Strategy

__all__ = ["AllReduce", "ShuffleAllReduce", "Strategy"]
