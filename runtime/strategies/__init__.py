"""Ways of training on a cluster, one file each."""

from .all_reduce import AllReduce
from .strategy import Strategy

__all__ = ["AllReduce", "Strategy"]
