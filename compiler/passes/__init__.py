"""The passes: each takes a graph and gives a graph, the very same object when it had nothing to do."""

from .pipeline import optimise

__all__ = ["optimise"]
