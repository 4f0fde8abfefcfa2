"""Hand-made type rules against JAX's abstract evaluation, on the contract table's ops and on shapes at the edges."""

import pytest
import rows_of_arrays  # noqa: F401  (the families fill ROWS)
import rows_of_elements  # noqa: F401
import rows_of_layers  # noqa: F401
import rows_of_sequences  # noqa: F401
from kerasoft.compiler.ir import Node, TensorType, topological
from kerasoft.compiler.ops import registry, rules
from kerasoft.compiler.ops.registry import REGISTRY
from op_contract import ROWS, Row

BY_HAND = {name: op for name, op in REGISTRY.items() if getattr(op.result, "__module__", "") == rules.__name__}


def by_jax(name: str, types: list, **attrs):
    return registry._infer(REGISTRY[name], tuple(types), registry._Attrs(attrs))


def _agree(n: Node) -> None:
    types = [i.type for i in n.inputs]
    found = n.op.result(types, n.attrs)
    assert found is None or found == by_jax(n.op.name, types, **n.attrs), n


@pytest.mark.parametrize("case", [r for r in ROWS if r.op in BY_HAND], ids=lambda r: r.label)
def test_rules_give_what_abstract_evaluation_gives(case: Row):
    made = case.call(*(given.node(i) for i, given in enumerate(case.inputs)))
    for n in topological([m for m in (made if isinstance(made, (tuple, list)) else [made]) if isinstance(m, Node)]):
        if n.op.name in BY_HAND:
            _agree(n)


def f(*shape, dtype="float32"):
    return TensorType(shape, dtype)


CONV = {"strides": (1, 1), "padding": "valid", "dilation": (1, 1), "groups": 1}


@pytest.mark.parametrize(
    ("name", "types", "attrs"),
    [
        ("add", [f(2, 1), f(3)], {}),
        ("add", [f(0, 3), f(1, 3)], {}),
        ("multiply", [f(), f(1, 1)], {}),
        ("where", [f(3, 1, dtype="bool"), f(), f(1, 4)], {}),
        ("greater", [f(2, 3), f()], {}),
        ("isnan", [f(2)], {}),
        ("sum", [f(2, 3, 4)], {"axis": (0, -1), "keepdims": True}),
        ("sum", [f(2, 3, 4)], {"axis": 1}),
        ("sum", [f(2, 3)], {"axis": ()}),
        ("broadcast_to", [f()], {"shape": (2, 0)}),
        ("conv", [f(2, 9, 8, 4), f(3, 2, 4, 6)], {**CONV, "padding": "same", "strides": (2, 3)}),
        ("conv", [f(2, 9, 8, 4), f(3, 2, 2, 6)], {**CONV, "dilation": (2, 3), "groups": 2}),
        ("conv", [f(2, 9, 8, 4), f(3, 2, 4, 6)], {**CONV, "padding": ((1, -1), (0, 2)), "strides": (2, 1)}),
        (
            "conv_fused",
            [f(2, 9, 8, 4), f(3, 2, 4, 6), f(6)],
            {**CONV, "has_bias": True, "has_sum": False, "relu": True},
        ),
        ("conv_grad_kernel_bias", [f(2, 9, 8, 4), f(2, 7, 7, 6)], {**CONV, "kernel_shape": (3, 2, 4, 6)}),
        ("max_pool", [f(2, 9, 8, 4)], {"window": (3, 2), "strides": (2, 3), "padding": "same"}),
        ("max_pool", [f(2, 9, 8, 4)], {"window": (3, 2), "strides": (2, 3), "padding": "valid"}),
    ],
)
def test_they_speak_for_the_plain_case(name, types, attrs):
    assert REGISTRY[name].result(types, attrs) == by_jax(name, types, **attrs)


@pytest.mark.parametrize(
    ("name", "types", "attrs"),
    [
        ("add", [f(2), f(3)], {}),
        ("add", [f(2), f(2, dtype="int32")], {}),
        ("relu", [f(2, dtype="bfloat16")], {}),
        ("zeros_like", [f(2)], {"dtype": "int32"}),
        ("sum", [f(2, 3)], {"axis": (0, 0)}),
        ("sum", [f(2, 3)], {"axis": (2,)}),
        ("broadcast_to", [f(3)], {"shape": (2, 3)}),
        ("conv", [f(2, 2, 8, 4), f(3, 2, 4, 6)], CONV),
        ("conv", [f(2, 9, 8, 4), f(3, 2, 3, 6)], CONV),
        ("max_pool", [f(2, 2, 8, 4)], {"window": (3, 2), "strides": (2, 3), "padding": "valid"}),
    ],
)
def test_they_leave_the_rest_to_jax(name, types, attrs):
    assert REGISTRY[name].result(types, attrs) is None
