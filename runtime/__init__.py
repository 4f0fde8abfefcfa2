"""The runtime: ships a `StepProgram` to Spark executors and trains it with AllReduce."""

import importlib

if __name__ != "kerasoft.runtime":
    raise ImportError(f"this folder is the package kerasoft.runtime, not {__name__!r}: use `import kerasoft.runtime`")

_STRATEGIES = """
    AllReduce Downpour DriverReduce LBFGS LocalSGD Parallel ParameterAveraging ParameterServer ShuffleAllReduce StaleSynchronous Strategy
"""
_NAMES = dict.fromkeys(_STRATEGIES.split(), "strategies")
_NAMES |= {"ParameterContext": "spark_parameter_context"}
_NAMES |= dict.fromkeys(("Threshold", "TopK", "TwoBit"), "collectives.compression")
__all__ = list(_NAMES)


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
