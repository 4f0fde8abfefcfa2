"""The graph and its types."""

from .graph import Constant, Graph, Node, inner_graphs, node, rebuilt, recording, source, topological, walk
from .types import Dim, TensorType, TupleType, Type, bind, is_static, symbol

__all__ = [
    "Constant",
    "Dim",
    "Graph",
    "Node",
    "TensorType",
    "TupleType",
    "Type",
    "bind",
    "is_static",
    "node",
    "inner_graphs",
    "rebuilt",
    "recording",
    "source",
    "symbol",
    "topological",
    "walk",
]
