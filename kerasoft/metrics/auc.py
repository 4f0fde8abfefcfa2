"""Area under the ROC or precision-recall curve, from counts at fixed thresholds."""

from __future__ import annotations

from .. import ops
from .arrays import ratio, xp
from .base import EPSILON, Metric, value_of
from .confusion import COUNTS, confusion_counts

CURVES = ("ROC", "PR", "PRGAIN")
SUMMATIONS = ("interpolation", "minoring", "majoring")


class AUC(Metric):
    """Area under a curve drawn through `num_thresholds` points, so an approximation of the exact area.

    Args:
        num_thresholds: points of the curve, at least 2, evenly spaced in [0, 1].
        curve: "ROC", "PR" or "PRGAIN".
        summation_method: "interpolation", "minoring" (lower sum) or "majoring" (upper sum).
        thresholds: inner points instead of evenly spaced ones.
        multi_label: one curve per label, averaged (with `label_weights`); else all labels in one curve.
        num_labels: number of labels for `multi_label`; known from the first batch when None.
        label_weights: weights of the labels.
        from_logits: whether predictions still need a sigmoid.

    Source: Davis and Goadrich, The Relationship Between Precision-Recall and ROC Curves (interpolation of PR).

    >>> import kerasoft as ks
    >>> round(float(ks.metrics.AUC(num_thresholds=3)([0, 0, 1, 1], [0.0, 0.5, 0.3, 0.9])), 4)
    0.75
    """

    _direction = "up"

    def __init__(
        self,
        num_thresholds=200,
        curve="ROC",
        summation_method="interpolation",
        name=None,
        dtype=None,
        thresholds=None,
        multi_label=False,
        num_labels=None,
        label_weights=None,
        from_logits=False,
    ):
        super().__init__(name=name, dtype=dtype)
        self.curve = _one_of("curve", str(curve).upper(), CURVES, curve)
        self.summation_method = _one_of("summation method", str(summation_method).lower(), SUMMATIONS, summation_method)
        self._given = thresholds is not None
        if thresholds is not None:
            inner = sorted(thresholds)
        elif num_thresholds <= 1:
            raise ValueError(
                f"Argument `num_thresholds` must be an integer > 1. Received: num_thresholds={num_thresholds}"
            )
        else:
            inner = [(i + 1) / (num_thresholds - 1) for i in range(num_thresholds - 2)]
        self.num_thresholds = len(inner) + 2
        self.thresholds = [0.0 - EPSILON, *inner, 1.0 + EPSILON]
        if num_labels and not multi_label:
            raise ValueError("`num_labels` is needed only when `multi_label` is True.")
        self.multi_label, self.num_labels, self.from_logits = multi_label, num_labels, from_logits
        self.label_weights = label_weights
        self._built = False
        if not multi_label or num_labels:
            self._build(num_labels)

    def _build(self, labels):
        shape = (self.num_thresholds, labels) if self.multi_label else (self.num_thresholds,)
        for name in ("true_positives", "false_positives", "true_negatives", "false_negatives"):
            setattr(self, name, self.add_variable(shape, name=name))
        self._built = True

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.convert_to_tensor(y_pred)
        if not self._built:
            if len(y_pred.shape) != 2:
                raise ValueError(
                    f"`y_pred` must have rank 2 when `multi_label=True`. Found rank {len(y_pred.shape)}. Full shape "
                    f"received for `y_pred`: {tuple(y_pred.shape)}"
                )
            self._build(y_pred.shape[1])
        counts = confusion_counts(
            y_true,
            ops.sigmoid(y_pred) if self.from_logits else y_pred,
            self.thresholds,
            sample_weight,
            multi_label=self.multi_label,
            label_weights=None if self.multi_label else self.label_weights,
        )
        for name in COUNTS:
            getattr(self, name).assign_add(counts[name])

    def result(self):
        tp, fp, tn, fn = (value_of(getattr(self, name)) for name in COUNTS)
        if self.curve == "PR" and self.summation_method == "interpolation":
            return self._over_labels(_interpolated_pr(tp, fp, fn))
        if self.curve == "ROC":
            x, y = ratio(fp, fp + tn), ratio(tp, tp + fn)
        elif self.curve == "PR":
            x, y = ratio(tp, tp + fn), ratio(tp, tp + fp)
        else:
            scale = ratio(tp + fn, tn + fp)
            x = xp.maximum(xp.where(tp == 0, 0.0, 1 - scale * ratio(fn, tp)), 0.0)
            y = xp.where(tp == 0, 1.0, 1 - scale * ratio(fp, tp))
        if self.summation_method == "interpolation":
            heights = (y[:-1] + y[1:]) / 2
        else:
            heights = (xp.minimum if self.summation_method == "minoring" else xp.maximum)(y[:-1], y[1:])
        return self._over_labels((x[:-1] - x[1:]) * heights)

    def _over_labels(self, terms):
        if not self.multi_label:
            return xp.sum(terms)
        areas = xp.sum(terms, axis=0)
        if self.label_weights is None:
            return xp.mean(areas)
        weights = xp.asarray(self.label_weights, areas.dtype)
        return ratio(xp.sum(areas * weights), xp.sum(weights))

    def get_config(self) -> dict:
        config = {
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": self.summation_method,
            "multi_label": self.multi_label,
            "num_labels": self.num_labels,
            "label_weights": None if self.label_weights is None else list(self.label_weights),
            "from_logits": self.from_logits,
        }
        if self._given:
            config["thresholds"] = self.thresholds[1:-1]
        return {**super().get_config(), **config}


def _interpolated_pr(tp, fp, fn):
    """Areas between neighbouring thresholds with precision interpolated through counts, not through ratios."""
    dtp, p = tp[:-1] - tp[1:], tp + fp
    slope = ratio(dtp, xp.maximum(p[:-1] - p[1:], 0))
    intercept = tp[1:] - slope * p[1:]
    both = (p[:-1] > 0) & (p[1:] > 0)
    grown = xp.where(both, ratio(p[:-1], xp.maximum(p[1:], 0)), xp.ones_like(p[1:]))
    return ratio(slope * (dtp + intercept * xp.log(grown)), xp.maximum(tp[1:] + fn[1:], 0))


def _one_of(argument, value, allowed, given):
    if value not in allowed:
        raise ValueError(f'Invalid AUC {argument} value: "{given}". Expected values are {list(allowed)}')
    return value
