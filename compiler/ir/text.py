"""Graphs as text, both ways. The grammar of a node is that of `graph.py`; in full::

    text     ::= (line newline)*
    line     ::= node | 'inputs' ref (',' ref)* | 'output' string '=' ref | nothing     -- '#' starts a comment
               | 'graph' opaque '{' newline text newline '}'           -- the body of a loop or branch, before its user
    node     ::= ref '=' op ['(' ref (',' ref)* ')'] ['{' name '=' value (',' ...)* '}'] ':' type ['of' string]
    ref      ::= '%' digits
    type     ::= dtype '[' [dim (',' dim)*] ']' | '(' [type (',' type)* [',']] ')'
    dim      ::= integer | unknown size such as b, 4*b, floordiv(n1, 2)
    value    ::= 'None' | 'True' | 'False' | integer | float | string | '<' dim '>' | array | opaque | '(' value, ... ')'
    array    ::= dtype '[' dims ']' ('(' number, ... ')' | '@' digest)
    opaque   ::= '&' digest                      -- a graph given above, a function or another Python object

Arrays of more than eight elements and opaque objects are written as digests; `print_graph(graph, table)` puts them into
`table`, which `parse_graph(text, table)` reads, so that parsing gives back the same graph: the same nodes.

>>> from kerasoft.compiler.ops.registry import input_node
>>> from kerasoft.compiler.ir import Graph, symbol
>>> x = input_node("x", (symbol("b"), 2), "float32")
>>> print(print_graph(Graph((x,), (x * 2.0,), ("y",))))
%0 = input{name='x'} : float32[b, 2]
%1 = constant{value=float32[](2.0)} : float32[]
%2 = multiply(%0, %1) : float32[b, 2]
inputs %0
output 'y' = %2
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import CompilerError, ParseError
from ..ops.registry import REGISTRY
from .graph import Constant, Graph, Node, node, source
from .types import TensorType, TupleType, Type, is_static, symbol

SHOWN_ELEMENTS = 8


def print_graph(graph: Graph, table: dict[str, Any] | None = None, sources: bool = True) -> str:
    """The graph as text; see the grammar at the top of this file.

    Args:
        table: filled with what the text shows by digest only.
        sources: whether the layers that nodes come from are named.
    """
    table = {} if table is None else table
    unused = [n for n in graph.inputs if n not in set(graph.nodes)]
    numbers: dict[Node, str] = {}
    lines: list[str] = []
    bodies: dict[str, str] = {}
    for n in [*unused, *graph.nodes]:
        numbers[n] = f"%{len(numbers)}"
        inputs = f"({', '.join(numbers[i] for i in n.inputs)})" if n.inputs else ""
        shown = len(bodies)
        attrs = ", ".join(f"{k}={_print_value(v, table, bodies, sources)}" for k, v in n.attrs.items())
        lines += [f"graph {key} {{\n{body}\n}}" for key, body in list(bodies.items())[shown:]]
        origin = f" of {n.source!r}" if n.source and sources else ""
        lines.append(f"{numbers[n]} = {n.op.name}{inputs}{'{' + attrs + '}' if attrs else ''} : {n.type}{origin}")
    if graph.inputs:
        lines.append(f"inputs {', '.join(numbers[n] for n in graph.inputs)}")
    lines += [f"output {name!r} = {numbers[n]}" for name, n in zip(graph.output_names, graph.outputs)]
    return "\n".join(lines)


def _print_value(value: Any, table: dict[str, Any], bodies: dict[str, str], sources: bool) -> str:
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(_print_value(v, table, bodies, sources) for v in value)}{',' if len(value) == 1 else ''})"
    if isinstance(value, Constant):
        return _print_array(value, table)
    if type(value).__name__ == "_DimExpr":
        return f"<{value}>"
    if isinstance(value, Graph):
        body = print_graph(value, table, sources)
        key = "&" + hashlib.sha256(body.encode()).hexdigest()[:16]
        bodies[key] = body
        return key
    name = f"{getattr(value, '__qualname__', type(value).__name__)}-{id(value):x}"
    key = "&" + hashlib.sha256(name.encode()).hexdigest()[:16]
    table[key] = value
    return key


def _print_array(constant: Constant, table: dict[str, Any]) -> str:
    array = constant.value
    head = f"{array.dtype.name}[{', '.join(map(str, array.shape))}]"
    numbers = array.ravel().tolist()
    if array.size <= SHOWN_ELEMENTS and all(isinstance(v, (bool, int)) or np.isfinite(v) for v in numbers):
        return f"{head}({', '.join(map(repr, numbers))})"
    digest = hashlib.sha256(f"{head}".encode() + array.tobytes()).hexdigest()[:16]
    table[f"@{digest}"] = constant
    return f"{head}@{digest}"


# --- parsing --------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+|\#.*)
      | (?P<ref>%\d+)
      | (?P<digest>[@&][0-9a-f]{16})
      | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<number>-?(?:\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+|\d+|inf\b|nan\b))
      | (?P<name>[A-Za-z_]\w*)
      | (?P<mark>[-+*/=:,(){}\[\]<>])
    """,
    re.VERBOSE,
)


class _Line:
    """The tokens of one line, read from left to right."""

    def __init__(self, text: str, number: int):
        self.text, self.number, self.at = text, number, 0
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise self.error(f"unexpected {text[position]!r}", position)
            if found.lastgroup != "space":
                self.tokens.append((str(found.lastgroup), found.group(), position))
            position = found.end()
        self.tokens.append(("end", "", len(text)))

    def error(self, what: str, column: int | None = None) -> ParseError:
        column = self.tokens[self.at][2] if column is None else column
        return ParseError(f"line {self.number}, column {column + 1}: {what}")

    def peek(self) -> str:
        return self.tokens[self.at][1]

    def kind(self) -> str:
        return self.tokens[self.at][0]

    def take(self, want: str | None = None, kind: str | None = None) -> str:
        found_kind, found, _ = self.tokens[self.at]
        if (want is not None and found != want) or (kind is not None and found_kind != kind):
            raise self.error(f"expected {want or 'a ' + str(kind)}, got {found or 'the end of the line'!r}")
        self.at += 1
        return found

    def accept(self, want: str) -> bool:
        if self.peek() == want and self.kind() != "string":
            self.at += 1
            return True
        return False

    def listed(self, close: str, one: Callable[[], Any]) -> tuple:
        """``one , one , ... close``; a comma before `close` is allowed."""
        found = []
        while not self.accept(close):
            found.append(one())
            if not self.accept(","):
                self.take(close)
                break
        return tuple(found)


def parse_graph(text: str, table: dict[str, Any] | None = None) -> Graph:
    """The graph that `text` describes.

    Args:
        table: what digests in the text stand for, as filled by `print_graph`.

    Raises:
        ParseError: `text` is no graph; gives line and column (counted from 1).
    """
    return _Parser(dict(table or {})).graph(enumerate(text.splitlines(), 1))


class _Parser:
    def __init__(self, table: dict[str, Any]):
        self.table = table
        self.nodes: dict[str, Node] = {}

    def graph(self, lines: Iterator[tuple[int, str]], body: bool = False) -> Graph:
        """The graph of the lines up to their end; a body's up to the line that closes it."""
        inputs: tuple[Node, ...] = ()
        outputs: dict[str, Node] = {}
        number = 0
        for number, raw in lines:
            line = _Line(raw, number)
            if line.kind() == "end":
                continue
            if body and line.peek() == "}":
                break
            if line.accept("graph"):
                key = line.take(kind="digest")
                line.take("{")
                self.table[key] = _Parser(self.table).graph(lines, body=True)
                continue
            if line.accept("inputs"):
                inputs = (self.ref(line),)
                while line.accept(","):
                    inputs += (self.ref(line),)
            elif line.accept("output"):
                name = self.string(line)
                if name in outputs:
                    raise line.error(f"output {name!r} stands twice")
                line.take("=")
                outputs[name] = self.ref(line)
            else:
                self.node(line)
            if line.kind() != "end":
                raise line.error(f"unexpected {line.peek()!r} after the end of the line's meaning")
        if not outputs:
            raise ParseError(f"line {number}, column 1: the graph has no output")
        return Graph(inputs, tuple(outputs.values()), tuple(outputs))

    def node(self, line: _Line) -> None:
        name = line.take(kind="ref")
        if name in self.nodes:
            raise line.error(f"{name} is defined twice", 0)
        line.take("=")
        column = line.tokens[line.at][2]
        op_name = line.take(kind="name")
        if op_name not in REGISTRY:
            raise line.error(f"unknown op {op_name!r}", column)
        inputs = line.listed(")", lambda: self.ref(line)) if line.accept("(") else ()
        attrs = dict(line.listed("}", lambda: self.attribute(line))) if line.accept("{") else {}
        line.take(":")
        type_column = line.tokens[line.at][2]
        declared = self.type(line)
        origin = self.string(line) if line.accept("of") else None
        op = REGISTRY[op_name]
        is_leaf = op_name in ("input", "param", "constant")
        try:
            with source(origin):
                made = node(op, inputs, attrs, declared if is_leaf else None)
        except (CompilerError, TypeError, ValueError) as error:
            raise line.error(str(error), column) from error
        if made.type != declared:
            raise line.error(f"the type says {declared}, {op_name} gives {made.type}", type_column)
        self.nodes[name] = made

    def ref(self, line: _Line) -> Node:
        column = line.tokens[line.at][2]
        name = line.take(kind="ref")
        if name not in self.nodes:
            raise line.error(f"{name} is not defined above", column)
        return self.nodes[name]

    def string(self, line: _Line) -> str:
        column = line.tokens[line.at][2]
        try:
            return ast.literal_eval(line.take(kind="string"))
        except (SyntaxError, ValueError) as error:
            raise line.error(f"no string: {error}", column) from None

    def attribute(self, line: _Line) -> tuple[str, Any]:
        name = line.take(kind="name")
        line.take("=")
        return name, self.value(line)

    def value(self, line: _Line) -> Any:
        kind, word, _ = line.tokens[line.at]
        if kind == "string":
            return self.string(line)
        if kind == "number":
            try:
                return _number(line.take())
            except ValueError as error:  # thousands of digits
                raise line.error(str(error)) from None
        if kind == "digest":
            return self.looked_up(line)
        if line.accept("("):
            return line.listed(")", lambda: self.value(line))
        if line.accept("<"):
            dim = self.dim(line, (">",))
            line.take(">")
            return dim
        if word in ("None", "True", "False"):
            line.take()
            return {"None": None, "True": True, "False": False}[word]
        if kind == "name":
            return self.array(line)
        raise line.error(f"expected a value, got {word or 'the end of the line'!r}")

    def array(self, line: _Line) -> Constant:
        column = line.tokens[line.at][2]
        declared = self.type(line)
        if line.kind() == "digest":
            return self.looked_up(line)
        line.take("(")
        numbers = line.listed(")", lambda: self.value(line))
        try:
            assert isinstance(declared, TensorType)
            return Constant(np.array(numbers, np.dtype(declared.dtype)).reshape(declared.shape))
        except (ValueError, TypeError, OverflowError, AssertionError) as error:
            raise line.error(f"{len(numbers)} numbers do not make {declared}", column) from error

    def looked_up(self, line: _Line) -> Any:
        key = line.take(kind="digest")
        if key not in self.table:
            raise line.error(f"{key} is not in the table", line.tokens[line.at - 1][2])
        return self.table[key]

    def type(self, line: _Line) -> Type:
        if line.accept("("):
            return TupleType(line.listed(")", lambda: self.type(line)))  # type: ignore[arg-type]
        column = line.tokens[line.at][2]
        dtype = line.take(kind="name")
        try:
            known = np.dtype(dtype).name
        except TypeError:
            raise line.error(f"unknown dtype {dtype!r}", column) from None
        line.take("[")
        return TensorType(line.listed("]", lambda: self.dim(line, (",", "]"))), known)

    def dim(self, line: _Line, ends: tuple[str, ...]) -> Any:
        start, depth, words = line.tokens[line.at][2], 0, []
        while line.kind() != "end" and (depth or line.peek() not in ends):
            word = line.take()
            depth += (word == "(") - (word == ")")
            words.append(word)
        text = " ".join(words)
        try:
            made = int(text) if text.lstrip("-").isdigit() else symbol(text)
        except Exception as error:  # noqa: BLE001 (JAX raises several kinds)
            raise line.error(f"{text!r} is no size", start) from error
        if not is_static(made) and not words:
            raise line.error("expected a size", start)
        return made


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
