"""Connectionist temporal classification: label sequences without places in the output."""

from __future__ import annotations

from .. import ops
from .base import BuiltInLoss


def ctc(y_true, y_pred):
    """The negative log probability of the labels of each row; class 0 means "no label" and pads `y_true`.

    Shapes: y_true int (batch, labels), y_pred logits (batch, steps, classes) -> (batch,).

    Raises:
        ValueError: other ranks.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    if len(y_true.shape) != 2:
        raise ValueError(
            "Targets `y_true` are expected to be a tensor of shape `(batch_size, max_length)` in integer format. "
            f"Received: y_true.shape={tuple(y_true.shape)}"
        )
    if len(y_pred.shape) != 3:
        raise ValueError(
            "Logits `y_pred` are expected to be a tensor of shape `(batch_size, max_length, num_classes)`. "
            f"Received: y_pred.shape={tuple(y_pred.shape)}"
        )
    labels = ops.sum(ops.cast(ops.not_equal(y_true, 0), "int32"), axis=-1)
    first = y_pred[:, :, 0]
    steps = ops.sum(ops.cast(ops.ones_like(first), "int32"), axis=-1)
    return ops.ctc_loss(y_true, y_pred, labels, steps, mask_index=0)


class CTC(BuiltInLoss):
    """CTC loss of integer labels and logits.

    Source: Graves et al. 2006.
    """

    def __init__(self, reduction="sum_over_batch_size", name="ctc", dtype=None):
        super().__init__(ctc, reduction, name, dtype)
