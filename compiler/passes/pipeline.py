"""Which passes run, in which order."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import VerifyError
from ..ir import Graph
from ..ir.verify import verify, verify_same_interface
from .common_subexpressions import CommonSubexpressions
from .drop_dead_nodes import DropDeadNodes
from .drop_unused_results import DropUnusedResults
from .fold_batch_normalization import FoldBatchNormalization
from .fold_constants import FoldConstants
from .fuse_batch_norm_relu import FuseBatchNormRelu
from .fuse_conv_lstm import FuseConvLstm
from .fuse_convolutions import FuseBiasGradients, FuseConvolutions
from .fuse_dense import FuseDense
from .fuse_lookups import FuseLookups
from .fuse_sparse_products import FuseSparseProducts
from .pass_base import Pass
from .simplify_algebra import SimplifyAlgebra
from .zero_bias_gradients import ZeroBiasGradients

KINDS = ("train", "test", "predict", "update", "export")
ROUNDS = 10

_CLEANING = (FoldConstants(), SimplifyAlgebra(), CommonSubexpressions(), DropUnusedResults(), DropDeadNodes())


def passes_for(kind: str) -> tuple[Pass, ...]:
    """The passes for a graph of `kind`, in order; the whole list runs again until nothing changes."""
    if kind in ("test", "predict"):
        return (
            *_CLEANING,
            FoldBatchNormalization(),
            FuseConvolutions(),
            FuseConvLstm(),
            FuseDense(),
            FuseLookups(),
            FuseSparseProducts(),
        )
    if kind == "train":
        return (
            *_CLEANING,
            ZeroBiasGradients(),
            FuseBatchNormRelu(),
            FuseConvolutions(),
            FuseBiasGradients(),
            FuseDense(),
        )
    if kind == "export":  # for other runtimes, which fuse for themselves
        return (*_CLEANING, FoldBatchNormalization())
    return _CLEANING


def optimise(graph: Graph, kind: str, check: bool | None = None) -> Graph:
    """The graph after all passes for `kind`; the same object when none had anything to do.

    Args:
        kind: "train", "test", "predict", "update" or "export".
        check: verify the graph after every pass; by default if the environment variable KERASOFT_VERIFY is "1".

    Raises:
        VerifyError: a pass broke the graph (when checking); names the pass.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, got {kind!r}")
    return run_passes(graph, passes_for(kind), check)


def run_passes(graph: Graph, passes: Sequence[Pass], check: bool | None = None) -> Graph:
    """`graph` after `passes`, run in order, again and again until a round changes nothing."""
    check = os.environ.get("KERASOFT_VERIFY") == "1" if check is None else check
    if check:
        verify(graph)
    for _ in range(ROUNDS):
        before = graph
        for one in passes:
            graph = _run(graph, one, check)
        if graph is before:
            return graph
    return graph


def _run(graph: Graph, one: Pass, check: bool) -> Graph:
    made = one.run(graph)
    if check and made is not graph:
        verify(made, after=one.name)
        verify_same_interface(graph, made, one.name)
    if check and made is not graph and made == graph:
        raise VerifyError(f"after pass {one.name}: an equal graph that is not the same object")
    return made
