"""What an executable is made of, as a name for its file: the same name, the same machine code.

Everything that a step's code depends on is in it: the graphs after the passes, the lowering chosen for each node, XLA's
options and flags, JAX's settings, types and tree of the arguments, what is donated, this package's own sources, and the
machine with its threads and versions (`kernels.machine`). What cannot be written down, such as a Python function among a
node's attributes or an op that a user defined, has no name, and its executable is not kept.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jaxlib
from jax._src import core

from .ir import Constant, Graph, walk
from .ir.text import print_graph
from .kernels import machine, settings
from .kernels.choice import Chooser
from .ops.registry import REGISTRY

_IDLE = (
    "cache",
    "traceback",
    "log",
    "transfer_guard",
)  # settings of JAX's, by parts of their names, that change no code


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a function that is compiled is made of, besides its arguments.

    Attributes:
        graphs: those that it computes, if any; kernels of the first are chosen by measuring.
        rest: whatever else its code depends on, as values whose `repr` says all of them.
    """

    graphs: tuple[Graph, ...]
    rest: tuple[Any, ...] = ()


def fingerprint(
    recipe: Recipe, chooser: Chooser | None, arguments: Sequence[Any], wanted: dict[str, Any]
) -> str | None:
    """64 hex digits; None if something cannot be written down.

    Args:
        chooser: of the first graph, if there is one. arguments: of the first call, positional.
        wanted: further settings of `jax.jit`, such as `donate_argnums`.
    """
    found = hashlib.sha256()
    for graph in recipe.graphs:
        text = _text(graph)
        if text is None:
            return None
        found.update(text.encode() + b"\0")
    picked: list[str] = []
    if chooser is not None:
        picked = [chooser.picked[n].name if n in chooser.picked else "" for n in recipe.graphs[0].nodes]
    leaves, tree = jax.tree.flatten(arguments)
    types = [core.shaped_abstractify(leaf) for leaf in leaves]
    options = sorted(chooser.options.items()) if chooser is not None else []
    kernels = (picked, options, sorted(settings.forced().items()), sorted(settings.left_out()))
    shapes = ([(t.shape, t.dtype.name, t.weak_type) for t in types], str(tree))
    for part in (recipe.rest, kernels, shapes, sorted(wanted.items()), _surroundings()):
        found.update(repr(part).encode() + b"\0")
    return found.hexdigest()


def _text(graph: Graph) -> str | None:
    """The graph as text that says all of it; names of layers are left out."""
    for n in walk(graph):
        ops = [n.op, *([REGISTRY[n.attrs["of"]]] if n.op.name == "vjp" else [])]
        if not all(op.home.startswith("kerasoft.") and REGISTRY.get(op.name) is op for op in ops):
            return None
    table: dict[str, Any] = {}
    text = print_graph(graph, table, sources=False)
    return text if all(isinstance(value, Constant) for value in table.values()) else None


def _surroundings() -> tuple[Any, ...]:
    """Beside the program: sources, machine, versions, XLA's flags, and settings of JAX's (this thread's too)."""
    flags = [(name, os.environ.get(name, "")) for name in ("XLA_FLAGS", "KERASOFT_ISA", "KERASOFT_NATIVE")]
    values = {k: v for k, v in jax.config.values.items() if not any(part in k for part in _IDLE)}
    context = [value for value in jax._src.config.trace_context() if not isinstance(value, core.AxisEnv)]
    about = (sorted(machine.description().items()), _processor_flags(), jaxlib.__version__, _sources())
    return (*about, flags, sorted(values.items()), context)


@functools.cache
def _sources() -> str:
    """SHA-256 of the compiler's Python files: two checkouts of one version may lower alike graphs unlike."""
    folder = pathlib.Path(__file__).parent
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        found.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


@functools.cache
def _processor_flags() -> str:
    """Instruction sets of the processor: machine code may use all of them."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
