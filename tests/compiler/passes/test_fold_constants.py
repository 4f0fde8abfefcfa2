"""FoldConstants."""

import numpy as np
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import creation, shape
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.registry import constant, input_node
from kerasoft.compiler.passes import FoldConstants

X = input_node("x", (symbol("b"), 2), "float32")


def test_a_tree_of_constants_becomes_one(check):
    c = a.sqrt(constant([1.0, 4.0]) * constant(4.0)) + constant(1.0)
    check(
        FoldConstants(),
        Graph((X,), (X * c,), ("y",)),
        [
            "constant{value=float32[2](1.0, 4.0)} : float32[2]",
            "constant{value=float32[](4.0)} : float32[]",
            "multiply(%1, %2) : float32[2]",
            "sqrt(%3) : float32[2]",
            "constant{value=float32[](1.0)} : float32[]",
            "add(%4, %5) : float32[2]",
            "multiply(%0, %6) : float32[b, 2]",
        ],
        ["constant{value=float32[2](3.0, 5.0)} : float32[2]", "multiply(%0, %1) : float32[b, 2]"],
    )


def test_what_stays(untouched):
    untouched(FoldConstants(), X * 2.0, inputs=(X,))
    untouched(FoldConstants(), shape.broadcast_to(constant(1.0), shape=(100, 100)))
    untouched(FoldConstants(), creation.full((symbol("b"),), 1.0))
    untouched(FoldConstants(), shape.sum(creation.full((symbol("b"),), 1.0)))  # of known shape, from unknown sizes
    untouched(FoldConstants(), a.negative(constant(np.zeros((300, 300), "f"))))
    untouched(FoldConstants(), all_reduce(constant(1.0)))
