"""The passes: each takes a graph and gives a graph, the very same object when it had nothing to do."""

from .common_subexpressions import CommonSubexpressions
from .drop_dead_nodes import DropDeadNodes
from .drop_unused_results import DropUnusedResults
from .fold_batch_normalization import FoldBatchNormalization
from .fold_constants import FoldConstants
from .fuse_batch_norm_relu import FuseBatchNormRelu
from .fuse_convolutions import FuseBiasGradients, FuseConvolutions
from .pass_base import Pass, Rule, RulePass, bottom_up
from .pipeline import optimise, passes_for, run_passes
from .simplify_algebra import SimplifyAlgebra
from .zero_bias_gradients import ZeroBiasGradients

__all__ = [
    "CommonSubexpressions", "DropDeadNodes", "DropUnusedResults", "FoldBatchNormalization", "FoldConstants", "FuseBatchNormRelu",
    "FuseBiasGradients", "FuseConvolutions", "Pass", "Rule", "RulePass", "SimplifyAlgebra", "ZeroBiasGradients", "bottom_up", "optimise",
    "passes_for", "run_passes",
]  # fmt: skip
