"""An ONNX graph in the making: names, constants, sizes that are known only when it runs."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import SerializationError

OPSET, IR_VERSION = 20, 10
LAST, FIRST = np.iinfo(np.int64).max, np.iinfo(np.int64).min
RULES: dict[str, Callable] = {}


def rule(*names: str) -> Callable:
    """Registers ``rule(builder, node, inputs) -> name | tuple of names`` for ops of the compiler."""

    def decorate(function: Callable) -> Callable:
        for name in names:
            RULES[name] = function
        return function

    return decorate


def element_type(dtype: str) -> int:
    import onnx

    if dtype == "bfloat16":
        raise SerializationError(
            "ONNX export does not write bfloat16, which ONNX Runtime does not compute on CPUs: rebuild the model with dtype "
            "'float32' and load the weights, or use format='stablehlo'"
        )
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class Builder:
    """Nodes and initializers; `names` maps compiler nodes to ONNX names.

    A body of a loop is a Builder whose `outer` is the surrounding one: it shares constants and known sizes.
    """

    def __init__(self, outer: Builder | None = None):
        self.outer = outer
        self.nodes: list[Any] = []
        self.initializers: list[Any] = outer.initializers if outer else []
        self.values: dict[str, np.ndarray] = outer.values if outer else {}  # constants and weights, by name
        self.counter: list[int] = outer.counter if outer else [0]
        self.names: dict[Any, Any] = {}
        self.sizes: dict[str, str] = dict(outer.sizes) if outer else {}  # size expression -> scalar int64 name
        self.constants: dict[Any, str] = outer.constants if outer else {}

    def fresh(self, hint: str) -> str:
        self.counter[0] += 1
        return f"{hint}_{self.counter[0]}"

    # --- making nodes ---

    def make(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node's output name, or a tuple of them."""
        import onnx

        names = [self.fresh(op.lower()) for _ in range(outputs)]
        attributes = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(onnx.helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else tuple(names)

    def constant(self, value: Any, dtype: Any = None) -> str:
        array = np.asarray(value, dtype)
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = self.initializer(self.fresh("constant"), array)
        return self.constants[key]

    def initializer(self, name: str, array: np.ndarray) -> str:
        import onnx

        element_type(array.dtype.name)
        self.initializers.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        self.values[name] = array
        return name

    def ints(self, values: Sequence[int]) -> str:
        return self.constant(np.asarray(list(values), np.int64).reshape(-1))

    def cast(self, name: str, have: str, want: str) -> str:
        return name if have == want else self.make("Cast", name, to=element_type(want))

    def transpose(self, name: str, axes: Sequence[int]) -> str:
        if list(axes) == list(range(len(axes))):
            return name
        if name in self.values:
            return self.constant(np.transpose(self.values[name], axes))
        return self.make("Transpose", name, perm=list(axes))

    # --- sizes ---

    def size(self, dim: Any) -> str:
        """A scalar int64 with the value of a size."""
        if isinstance(dim, (int, np.integer)):
            return self.constant(int(dim), np.int64)
        text = str(dim)
        if text not in self.sizes:
            self.sizes[text] = self._expression(ast.parse(text, mode="eval").body, text)
        return self.sizes[text]

    def _expression(self, tree: ast.AST, text: str) -> str:
        if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
            return self.constant(tree.value, np.int64)
        if isinstance(tree, ast.Name) and tree.id in self.sizes:
            return self.sizes[tree.id]
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            return self.make("Neg", self._expression(tree.operand, text))
        kinds = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul"}
        if isinstance(tree, ast.BinOp) and type(tree.op) in kinds:
            return self.make(
                kinds[type(tree.op)], self._expression(tree.left, text), self._expression(tree.right, text)
            )
        calls = {"floordiv": "Div", "mod": "Mod", "max": "Max", "min": "Min"}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in calls:
            return self.make(calls[tree.func.id], *[self._expression(a, text) for a in tree.args])
        raise SerializationError(f"ONNX export cannot compute the size {text}; fix it with `input_signature`")

    def vector(self, dims: Sequence[Any]) -> str:
        """int64 (n,) of sizes."""
        if all(isinstance(d, (int, np.integer)) for d in dims):
            return self.ints(dims)  # type: ignore[arg-type]
        parts = [self.make("Reshape", self.size(d), self.ints([1])) for d in dims]
        return self.make("Concat", *parts, axis=0)

    def shape_vector(self, dims: Sequence[Any]) -> str:
        """As `vector`, for Reshape: a single unknown size is -1."""
        unknown = [i for i, d in enumerate(dims) if not isinstance(d, (int, np.integer))]
        if len(unknown) == 1 and 0 not in dims:
            return self.ints([-1 if i in unknown else d for i, d in enumerate(dims)])
        return self.vector(dims)

    # --- compiler nodes ---

    def convert(self, nodes: Sequence[Any]) -> None:
        """Adds what `nodes` (in topological order) compute.

        Raises:
            SerializationError: an op without a rule; names it and its layer.
        """
        for n in nodes:
            if n in self.names:
                continue
            made = RULES.get(n.op.name)
            if made is None:
                where = f" of layer '{n.source}'" if n.source else ""
                raise SerializationError(
                    f"ONNX export has no form for op '{n.op.name}'{where} ({n.type}). Use format='stablehlo', or leave the "
                    "layer out of the exported model."
                )
            self.names[n] = made(self, n, [self.names[i] for i in n.inputs])

    def inputs_as(self, n: Any, names: Sequence[str], dtype: str) -> list[str]:
        """The inputs of `n`, cast."""
        return [self.cast(name, i.dtype, dtype) for name, i in zip(names, n.inputs, strict=True)]
