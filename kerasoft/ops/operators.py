"""Gives graph nodes the operators that the compiler left out, so that they meet tensors of every kind."""

from ..compiler.ir import Node
from ..operators import with_operators

with_operators(Node)
