"""A convolutional LSTM takes the convolution of its input along, so that the gates' sums are never written to memory."""

from __future__ import annotations

import math

from ..ir import Graph, Node, TensorType
from ..ops import shape
from ..ops.conv_lstm import conv_lstm_of_input
from .fuse_convolutions import users_of
from .pass_base import Pass, bottom_up

# Channels of the input, by the window's last axis, up to which one op is faster: measured, docs/design/0009. With more of
# them the convolution's own kernels gain more than the gates' way to memory and back takes.
WIDEST = {3: 32}
WIDEST_OTHERS = 16
RESULTS = {0, 1, 2}  # sequence, h and c; gates and cells are read by gradients only


class FuseConvLstm(Pass):
    """Makes ``conv_lstm(reshape(conv(reshape(x), kernel) + bias), ...)`` one op.

    Keeps: inputs, outputs, types; values agree to rounding. Needs: gradients are taken already, and convolutions have their
    bias (FuseConvolutions); the input's window is the state's, with stride 1 and padding "same". Gain:
    docs/design/0009-recurrent-kernels.md.
    """

    def find(self, graph: Graph) -> set[Node]:
        users = users_of(graph)
        return {n for n in graph.nodes if n.op.name == "conv_lstm" and _fits(n, users)}

    def replace(self, graph: Graph, found: set[Node]) -> Graph:
        return bottom_up(graph, lambda old, n: _fused(n) if old in found else n)


def _fits(n: Node, users: dict[Node, list[Node]]) -> bool:
    z, wanted = n.inputs[0], n.attrs["wanted"]
    if wanted is None or not RESULTS.issuperset(wanted) or z.op.name != "reshape" or users[z] != [n]:
        return False
    conv, recurrent = z.inputs[0], n.inputs[3]
    if conv.op.name not in ("conv", "conv_fused") or users[conv] != [z] or conv.shape[1:] != z.shape[2:]:
        return False
    attrs = conv.attrs
    if attrs.get("has_sum") or attrs.get("relu") or attrs["padding"] != "same" or attrs["groups"] != 1:
        return False
    if any(i.dtype != "float32" for i in (*conv.inputs, *n.inputs[:4]) if isinstance(i.type, TensorType)):
        return False
    plain = all(step == 1 for step in (*attrs["strides"], *attrs["dilation"]))
    return plain and conv.inputs[1].shape[:-2] == recurrent.shape[:-2] and _pays(conv.inputs[1].shape)


def _pays(kernel: tuple[int, ...]) -> bool:
    *window, channels, _ = kernel
    return math.prod(window) == 1 or channels <= WIDEST.get(window[-1], WIDEST_OTHERS)


def _fused(n: Node) -> Node:
    z, *states_and_mask = n.inputs
    x, kernel, *bias = z.inputs[0].inputs
    wanted = (*z.shape[:2], *x.shape[1:])
    before = x.inputs[0] if x.op.name == "reshape" else None
    x = before if before is not None and before.shape == wanted else shape.reshape(x, shape=wanted)
    return conv_lstm_of_input(x, kernel, *bias, *states_and_mask, has_bias=bool(bias), **n.attrs)
