"""Each rule of the verifier, broken."""

import pytest
from kerasoft.compiler.errors import VerifyError
from kerasoft.compiler.ir import Graph, Node, TensorType, symbol
from kerasoft.compiler.ir.verify import verify, verify_same_interface
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import shape
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.registry import Op, input_node, node, param_node

B = symbol("b")
X = input_node("x", (B, 2), "float32")


def forged(op, inputs, attrs, type):
    made = object.__new__(Node)
    for name, value in (("op", op), ("inputs", inputs), ("attrs", attrs), ("type", type), ("source", None)):
        object.__setattr__(made, name, value)
    return made


def test_a_good_graph_comes_back():
    graph = Graph((X,), (a.negative(X),), ("y",))
    assert verify(graph) is graph


@pytest.mark.parametrize(
    "graph, error",
    [
        (Graph((X,), (), ()), "the graph has no outputs"),
        (Graph((X,), (X,), ("a", "b")), "1 outputs have 2 names"),
        (Graph((X,), (X, X), ("a", "a")), "two outputs are named 'a'"),
        (Graph((), (a.negative(X),), ("y",)), "input 'x' is used but not among the graph's inputs"),
        (Graph((a.negative(X),), (X,), ("y",)), "is no input node"),
        (Graph((X, input_node("x", (), "int32")), (X,), ("y",)), "two inputs are named 'x'"),
        (Graph((), (param_node("p", (1,)) + param_node("p", (2,)),), ("y",)), "two params are named 'p'"),
        (
            Graph((X,), (forged(a.negative, (X,), {}, TensorType((B, 3), "float32")),), ("y",)),
            "has type float32[b, 3], its op infers float32[b, 2]",
        ),
        (
            Graph((X,), (forged(a.negative, (X,), {}, X.type) * a.negative(X),), ("y",)),
            "stands twice in the graph",
        ),
        (
            Graph((X,), (node(Op("lonely", a.negative.lower, None, None, None, False), (X,), {}),), ("y",)),
            "op 'lonely' is not in the registry",
        ),
    ],
)
def test_broken_rules_are_named(graph, error):
    with pytest.raises(VerifyError) as caught:
        verify(graph, after="SomePass")
    assert str(caught.value).startswith("after pass SomePass: ") and error in str(caught.value)


def test_passes_keep_the_interface():
    y = shape.sum(all_reduce(X))
    before = Graph((X,), (y,), ("y",))
    for changed, error in [
        (Graph((), (y,), ("y",)), "the inputs differ"),
        (Graph((X,), (y,), ("z",)), "the outputs are named ('z',), were ('y',)"),
        (Graph((X,), (all_reduce(X),), ("y",)), "output 'y' has type float32[b, 2], was float32[]"),
        (Graph((X,), (shape.sum(X),), ("y",)), "1 nodes with effects are gone"),
    ]:
        with pytest.raises(VerifyError) as caught:
            verify_same_interface(before, changed, "SomePass")
        assert str(caught.value) == f"after pass SomePass: {error}"


def test_bodies_of_loops_are_checked_too():
    from kerasoft.compiler.ops import control

    def loop(step):
        (last,), _ = control.scan(lambda c, cells: ([step(c[0])], []), [shape.sum(X, axis=0)], length=3)
        return Graph((X,), (last,), ("y",))

    verify(loop(a.exp))
    with pytest.raises(VerifyError) as caught:
        verify(loop(all_reduce))
    assert "<all_reduce : float32[2]> stands inside <scan : (float32[2])>: sums over replicas" in str(caught.value)
    with pytest.raises(VerifyError, match="inside <scan.*: .*has type float32.7., its op infers float32.2."):
        verify(loop(lambda c: shape.sum(forged(a.exp, (c,), {}, TensorType((7,), "float32")), keepdims=True) + c))
