"""Ways of training on a cluster, one file each."""

from .all_reduce import AllReduce
from .downpour import Downpour
from .driver_reduce import DriverReduce
from .lbfgs import LBFGS
from .local_sgd import LocalSGD
from .long_lived import LongLived
from .parallel import Parallel
from .parameter_averaging import ParameterAveraging
from .parameter_server import ParameterServer
from .shuffle_all_reduce import ShuffleAllReduce
from .stale_synchronous import StaleSynchronous
from .strategy import Strategy

__all__ = [
    "AllReduce", "Downpour", "DriverReduce", "LBFGS", "LocalSGD", "LongLived", "Parallel", "ParameterAveraging", "ParameterServer", "ShuffleAllReduce",
    "StaleSynchronous", "Strategy",
]  # fmt: skip
