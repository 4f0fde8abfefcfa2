"""QuantizedGraph: a compiled graph with its numbers as a layer, which saves, loads and runs wherever a layer does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import tree
from ..compiler.ir import Constant, Graph, Node, bind, node
from ..compiler.ir.text import parse_graph, print_graph
from ..errors import SerializationError
from ..layers.layer import Layer


class QuantizedGraph(Layer):
    """What `post_training` makes of a model: its graph in 8-bit integers.

    Its weights are frozen: a program that has been compiled holds them as constants, which lets the kernels keep them in
    the order that they like.

    Args:
        graph: text of the graph, see `kerasoft.compiler.ir.text`.
        constants: ``[digest, shape, dtype]`` of each array that the text names by digest.
        params: ``[name, shape]`` of each float32 param of the graph.
        structure: of the outputs: ``"one"``, ``"list"``, or the keys of a dict.
        report: what quantisation found, as plain data; see `QuantizationReport`.
    """

    def __init__(
        self,
        graph: str,
        constants: Any = (),
        params: Any = (),
        structure: Any = "one",
        report: Any = None,
        *,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self._text, self._structure, self._report = graph, structure, report
        self._described = ([list(c) for c in constants], [list(p) for p in params])
        self._parsed: Graph | None = None
        self._arrays = [
            self.add_weight(tuple(shape), "zeros", dtype, trainable=False, autocast=False, name=f"constant_{i}")
            for i, (_, shape, dtype) in enumerate(self._described[0])
        ]
        self._params = {
            name: self.add_weight(
                tuple(shape), "zeros", "float32", trainable=False, autocast=False, name=name.replace("/", ".")
            )
            for name, shape in self._described[1]
        }

    @classmethod
    def of(cls, graph: Graph, values: Mapping[str, np.ndarray], structure: Any = "one", report: Any = None, **kwargs):
        """The layer of a graph.

        Args:
            values: the array of each param, by name.

        Raises:
            SerializationError: the graph calls Python functions, which no file can hold.
        """
        table: dict[str, Any] = {}
        text = print_graph(graph, table)
        functions = [key for key in table if not key.startswith("@")]
        if functions:
            raise SerializationError(
                "the model calls Python functions (ops.jax, or a layer of such), which a quantised model cannot hold"
            )
        constants = [[key, list(c.value.shape), c.value.dtype.name] for key, c in table.items()]
        params = [[name, list(np.shape(value))] for name, value in values.items()]
        made = cls(text, constants, params, structure, report, **kwargs)
        for variable, constant in zip(made._arrays, table.values(), strict=True):
            variable.assign(constant.value)
        for name, value in values.items():
            made._params[name].assign(value)
        made._parsed = graph
        return made

    @property
    def graph(self) -> Graph:
        """The graph, its constants in it."""
        if self._parsed is None:
            digests = [digest for digest, *_ in self._described[0]]
            table = {key: Constant(v.numpy()) for key, v in zip(digests, self._arrays, strict=True)}
            self._parsed = parse_graph(self._text, table)
        return self._parsed

    def call(self, inputs: Any) -> Any:
        given = [x.__graph_value__() if hasattr(x, "__graph_value__") else x for x in tree.flatten(inputs)]
        sizes: dict[str, Any] = {}
        for n, x in zip(self.graph.inputs, given, strict=True):
            sizes |= {str(want): got for want, got in zip(n.shape, x.shape, strict=True) if not isinstance(want, int)}
        known: dict[Node, Any] = dict(zip(self.graph.inputs, given, strict=True))
        tracing = any(isinstance(x, Node) for x in given)
        for n in self.graph.nodes:
            if n in known:
                continue
            if n.op.name == "param":
                known[n] = self._params[n.attrs["name"]]
            elif n.op.name == "constant":
                known[n] = n if tracing else n.attrs["value"].value
            else:
                attrs = {key: bind(value, sizes) for key, value in n.attrs.items()}
                inputs = [known[i] for i in n.inputs]
                known[n] = n.op(*inputs, **attrs) if inputs or not tracing else node(n.op, (), attrs)
        outputs = [known[o] for o in self.graph.outputs]
        if isinstance(self._structure, str):
            return outputs[0] if self._structure == "one" else outputs
        return dict(zip(self._structure, outputs, strict=True))

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        self._parsed = None

    def get_config(self) -> dict[str, Any]:
        constants, params = self._described
        return {
            **super().get_config(),
            "graph": self._text,
            "constants": constants,
            "params": params,
            "structure": self._structure,
            "report": self._report,
        }
