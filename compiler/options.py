"""XLA compile options of a graph. They travel inside a `StepProgram` and belong to one executable each.

Options that change how XLA itself computes an op make variants of the op's own lowering, among which kernel choice
(compiler/kernels/choice.py) picks: "xla" are XLA's defaults, "xla-eigen" sends convolutions to Eigen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .ir import Graph, Node, walk

CONVOLUTIONS_BY_EIGEN = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
DEFAULT = "xla"
VARIANTS: Mapping[str, Mapping[str, str]] = {DEFAULT: {}, "xla-eigen": CONVOLUTIONS_BY_EIGEN}
_GRADIENTS = ("conv_grad_kernel", "conv_grad_kernel_bias")
SENSITIVE = frozenset(("conv", "conv_fused", "conv_grad_input", *_GRADIENTS))  # whose own lowering the variants change


def rule(graph: Graph, left_to_xla: Callable[[Node], bool] = lambda n: True) -> str:
    """The variant for one executable of `graph` without measurements.

    XLA's default sends convolutions to a library that is 1.3 to 4 times slower than Eigen's when there are several input
    channels, and up to 3 times faster when there is one; products stay where they are. The choice is for a whole
    executable, so it falls on Eigen only if no convolution has one channel (docs/design/0004-kernel-choice.md).

    Args:
        left_to_xla: whether a node is computed by XLA; others have no say.
    """
    channels = [_convolution_channels(n) for n in walk(graph) if n.op.name in SENSITIVE and left_to_xla(n)]
    return "xla-eigen" if channels and min(channels) > 1 else DEFAULT


def compiler_options(graph: Graph) -> dict[str, str]:
    """The options of `rule`, all convolutions being XLA's."""
    return dict(VARIANTS[rule(graph)])


def _convolution_channels(n: Node) -> int:
    """Input channels of each group of a convolution or of one of its gradients."""
    return n.attrs["kernel_shape"][-2] if n.op.name in _GRADIENTS else n.inputs[1].shape[-2]
