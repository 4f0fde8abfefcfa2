"""XLA compile options of a graph. They travel inside a `StepProgram` and belong to one executable each."""

from __future__ import annotations

from .ir import Graph

CONVOLUTIONS_BY_EIGEN = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}

DETERMINISTIC = {"xla_cpu_multi_thread_eigen": "false"}


def compiler_options(graph: Graph) -> dict[str, str]:
    """Options for one executable of `graph`.

    XLA's default sends convolutions to a library that is 1.3 to 4 times slower than Eigen's, except when there is one
    input channel (docs/performance.md); products stay where they are.
    """
    return dict(CONVOLUTIONS_BY_EIGEN) if any(map(_is_wide_convolution, graph.nodes)) else {}


def _is_wide_convolution(n) -> bool:
    name = n.attrs["of"] if n.op.name == "vjp" else n.op.name
    return name.startswith("conv") and len(n.inputs) >= 2 and n.inputs[0].ndim >= 3 and n.inputs[0].shape[-1] != 1
