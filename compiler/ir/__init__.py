"""The graph and its types."""

from .graph import Constant, Graph, Node, node, rebuilt, source, topological
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
    "rebuilt",
    "source",
    "symbol",
    "topological",
]
