"""DropUnusedResults."""

from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import recurrent
from kerasoft.compiler.ops.registry import input_node, param_node
from kerasoft.compiler.passes import DropUnusedResults

B = symbol("b")
X, H = input_node("x", (B, 4, 2), "float32"), input_node("h", (B, 3), "float32")
W, U = param_node("w", (2, 9)), param_node("u", (3, 9))
ATTRS = (
    "activation='tanh', go_backwards=False, has_bias=False, has_dropout=False, has_mask=False, "
    "recurrent_activation='sigmoid', reset_after=True"
)


def test_a_prediction_keeps_no_gates(check):
    check(
        DropUnusedResults(),
        Graph((X, H), (recurrent.gru(X, H, W, U)[1],), ("y",)),
        [
            f"gru(%0, %1, %2, %3){{{ATTRS}, wanted=None}} : (float32[b, 4, 3], float32[b, 3], float32[4, b, 12])",
            "item(%4){index=1} : float32[b, 3]",
        ],
        [
            f"gru(%0, %1, %2, %3){{{ATTRS}, wanted=(1,)}} : (float32[b, 3])",
            "item(%4){index=0} : float32[b, 3]",
        ],
    )


def test_what_stays(untouched):
    sequence, h = recurrent.simple_rnn(X, H, param_node("w", (2, 3)), param_node("u", (3, 3)))
    untouched(DropUnusedResults(), sequence, h, inputs=(X, H))
