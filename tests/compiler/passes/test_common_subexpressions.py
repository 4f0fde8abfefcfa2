"""CommonSubexpressions."""

from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops.registry import input_node
from kerasoft.compiler.passes import CommonSubexpressions

X, Y = (input_node(n, (symbol("b"), 2), "float32") for n in "xy")


def test_operands_in_another_order_are_the_same_expression(check):
    check(
        CommonSubexpressions(),
        Graph((X, Y), (a.exp(X * Y) - a.log(a.exp(Y * X)),), ("y",)),
        [
            "multiply(%0, %1) : float32[b, 2]",
            "exp(%2) : float32[b, 2]",
            "multiply(%1, %0) : float32[b, 2]",
            "exp(%4) : float32[b, 2]",
            "log(%5) : float32[b, 2]",
            "subtract(%3, %6) : float32[b, 2]",
        ],
        [
            "multiply(%0, %1) : float32[b, 2]",
            "exp(%2) : float32[b, 2]",
            "log(%3) : float32[b, 2]",
            "subtract(%3, %4) : float32[b, 2]",
        ],
    )


def test_what_stays(untouched):
    untouched(CommonSubexpressions(), X * Y, X * X, Y + X, inputs=(X, Y))
    untouched(CommonSubexpressions(), X - Y, Y - X, inputs=(X, Y))
