"""How long a step takes on so many nodes, by each strategy: a model fed with measured costs. Pages: docs/scaling.md.

>>> from kerasoft.runtime import AllReduce
>>> job = Job(parameters=7e6, compute_s=0.5, nodes=64, network=Network.ethernet(10))
>>> 0.8 < predict(AllReduce(topology="ring"), job).efficiency < 1
True
"""

from .costs import Failures, Job, Network, Prediction, Spark, Stragglers
from .strategies import predict

__all__ = ["Failures", "Job", "Network", "Prediction", "Spark", "Stragglers", "predict"]
