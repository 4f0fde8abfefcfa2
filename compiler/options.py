"""XLA compile options of a graph. They travel inside a `StepProgram` and belong to one executable each."""

from __future__ import annotations

from .ir import Graph, Node, walk

CONVOLUTIONS_BY_EIGEN = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def compiler_options(graph: Graph) -> dict[str, str]:
    """Options for one executable of `graph`.

    XLA's default sends convolutions to a library that is 1.3 to 4 times slower than Eigen's when there are several input
    channels, and up to 3 times faster when there is one; products stay where they are. The choice is for a whole
    executable, so it falls on Eigen only if no convolution has one channel (docs/design/0004-kernel-choice.md).
    """
    channels = [c for c in map(_convolution_channels, walk(graph)) if c is not None]
    return dict(CONVOLUTIONS_BY_EIGEN) if channels and min(channels) > 1 else {}


def _convolution_channels(n: Node) -> int | None:
    """Input channels of each group of a convolution or of one of its gradients; None for other nodes."""
    if n.op.name in ("conv", "conv_grad_input"):
        return n.inputs[1].shape[-2]
    return n.attrs["kernel_shape"][-2] if n.op.name == "conv_grad_kernel" else None
