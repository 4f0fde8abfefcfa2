"""What a pass is, and rewriting a graph by rules."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..ir import Graph, Node, rebuilt, source


class Pass(abc.ABC):
    """Takes a graph and gives a graph: the very same object when it had nothing to do.

    `find` looks and changes nothing; what it returns is false when there is nothing to do. `replace` makes the new graph
    from what was found. Each pass's docstring says what it changes, what it keeps and what must already hold.
    """

    @property
    def name(self) -> str:
        return type(self).__name__

    @abc.abstractmethod
    def find(self, graph: Graph) -> Any:
        """What `replace` needs, or something false."""

    @abc.abstractmethod
    def replace(self, graph: Graph, found: Any) -> Graph:
        """The graph with everything that was found replaced."""

    def run(self, graph: Graph) -> Graph:
        found = self.find(graph)
        return self.replace(graph, found) if found else graph


def bottom_up(graph: Graph, change: Callable[[Node, Node], Node]) -> Graph:
    """The graph with ``change(old, node)`` for each node, inputs before users; `node` is `old` on changed inputs."""
    new: dict[Node, Node] = {}
    for n in graph.nodes:
        inputs = tuple(new[i] for i in n.inputs)
        new[n] = change(n, n if inputs == n.inputs else rebuilt(n, inputs))
    return graph.replace({old: made for old, made in new.items() if made is not old})


@dataclasses.dataclass(frozen=True)
class Rule:
    """One local rewrite.

    Attributes:
        name: what it does, such as "x * 1 = x".
        find: ``find(node)`` gives what `replace` needs, or None.
        replace: ``replace(node, found)`` gives a node of the same type, or None after all.
    """

    name: str
    find: Callable[[Node], Any]
    replace: Callable[[Node, Any], Node | None]


class RulePass(Pass):
    """A pass that applies `rules` to every node, inputs before users, until none applies to it."""

    rules: Sequence[Rule] = ()

    def find(self, graph: Graph) -> list[tuple[Rule, Node]]:
        """The first rule for each node of the graph as it is."""
        return [(rule, n) for n in graph.nodes for rule in self.rules if _applied(rule, n) is not None]

    def replace(self, graph: Graph, found: Any) -> Graph:
        return bottom_up(graph, lambda old, n: self._settled(n))

    def _settled(self, n: Node) -> Node:
        for _ in range(100):
            for rule in self.rules:
                made = _applied(rule, n)
                if made is not None:
                    n = made
                    break
            else:
                return n
        raise RecursionError(f"{self.name}: the rules never settle on {n!r}")


def _applied(rule: Rule, n: Node) -> Node | None:
    found = rule.find(n)
    if found is None:
        return None
    with source(n.source):
        made = rule.replace(n, found)
    return None if made is None or made is n or made.type != n.type else made
