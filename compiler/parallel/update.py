"""The optimizer's step of a worker that holds a part of the model."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir import Graph, Node, rebuilt
from ..ops import arithmetic as a
from ..ops.registry import input_node
from ..program import StepSource
from .mesh import Mesh, ParallelError

COUNTED = (
    "counted"  # float32[n], an input of an update: 1 for elements that this worker counts in sums over all of them
)


def check_update(source: StepSource, mesh: Mesh) -> None:
    """
    Raises:
        ParallelError: workers that hold parts of the model cannot make this optimizer's step.
    """
    if source.flags.update_mode == "sliced":
        return
    if mesh.pipeline == 1:
        raise ParallelError(
            "this optimizer looks at whole weights (constraints, Muon, Adafactor, or a step of its own), which workers that "
            "hold parts of weights do not have. Give pipeline=, whose stages hold whole ones, or take an optimizer that works "
            "element by element, such as Adam or SGD"
        )
    if not callable(source.part_update):
        why = f": {source.part_update}" if source.part_update else ""
        raise ParallelError(
            f"this optimizer needs all weights at once{why}, and each stage of a pipeline has its own. Take another "
            "optimizer, or AllReduce"
        )


def part_update(source: StepSource, names: Sequence[str]) -> Graph | None:
    """The update of a worker that holds these weights, each whole.

    Raises:
        ParallelError: it has none, and the optimizer looks at whole weights.
    """
    if source.flags.update_mode == "sliced" or source.update is None:
        return source.update
    if not names:
        raise ParallelError(
            "a stage of the pipeline has no weights of its own, which this optimizer, as it looks at whole weights, does not allow; "
            "give fewer stages, or pin a layer with weights to each by its placement"
        )
    assert callable(source.part_update)
    return source.part_update(names)


def sums(update: Graph | None) -> list[Node]:
    """The sums over the elements of all slices that a step needs (norms)."""
    return [] if update is None else [n for n in update.nodes if n.op.name == "all_reduce"]


def counting_once(update: Graph) -> Graph:
    """An update over slices some of whose elements other workers have too: each counts once in the norms.

    What is summed over slices is multiplied by the input "counted"; without such sums the graph comes back as it is.

    Raises:
        ParallelError: something is summed over slices that is no sum over elements.
    """
    mapping: dict[Node, Node] = {}
    counted = input_node(COUNTED, update.inputs[0].shape, "float32")
    for n in sums(update):
        total = n.inputs[0]
        if total.op.name not in ("sum", "segment_sum") or total.inputs[0].shape != counted.shape:
            raise ParallelError(
                f"this optimizer sums {total.op.name!r} of {total.type} over the slices of the weights, which is no sum over "
                "their elements: workers with copies of a weight cannot say what to count once. Give pipeline= instead of model="
            )
        mapping[total] = rebuilt(total, (a.multiply(total.inputs[0], counted), *total.inputs[1:]))
    if not mapping:
        return update
    made = update.replace(mapping)
    return Graph((*made.inputs, counted), made.outputs, made.output_names)
