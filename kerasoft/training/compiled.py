"""What `compile` was given, as a loss and a metric that can be called: for steps of the user's own, and eagerly."""

from __future__ import annotations

from typing import Any

from .. import ops, tree
from ..metrics import Mean
from ..metrics.base import Metric
from .targets import CompileArguments, Targets, match, resolve_targets


def aligned(compiled: CompileArguments, y: Any, sample_weight: Any, y_pred: Any, names: tuple) -> tuple[list, list]:
    """Labels and sample weights of each flattened output, None where there are none."""
    loss = compiled.loss
    counts = [True] * len(names)
    if isinstance(loss, dict):
        counts = [name in loss for name in names]
    elif isinstance(loss, (list, tuple)) and len(loss) == len(names):
        counts = [entry is not None for entry in loss]
    labels = match(y, y_pred, names, counts, "y")
    return labels, match(sample_weight, y_pred, names, counts, "sample_weight")


class CompileMetrics(Metric):
    """All compiled metrics of a model as one; Keras lists it as "compile_metrics" in `model.metrics`.

    Args:
        owner: a `Compiled`.
    """

    def __init__(self, owner: Compiled):
        super().__init__(name="compile_metrics")
        self.__dict__["_owner"] = owner

    @property
    def metrics(self) -> list[Metric]:
        return [term.metric for term in self._owner.terms]

    @property
    def variables(self) -> list:
        return [v for metric in self.metrics for v in metric.variables]

    def update_state(self, y_true, y_pred, sample_weight=None):
        targets, flat, labels, weights = self._owner.at(y_true, y_pred, sample_weight)
        for term in targets.metrics:
            weight = weights[term.index] if term.weighted else None
            if weight is None:
                term.metric.update_state(labels[term.index], flat[term.index])
            else:
                term.metric.update_state(labels[term.index], flat[term.index], weight)

    def reset_state(self) -> None:
        for metric in self.metrics:
            metric.reset_state()

    def result(self) -> dict[str, Any]:
        if self._owner.targets is None:
            raise ValueError("Cannot get result() since the metric has not yet been built.")
        found: dict[str, Any] = {}
        for term in self._owner.terms:
            found[term.name] = result_of(term.metric)
        return found


class Compiled:
    """The losses and metrics of one `compile`.

    Attributes:
        tracker: mean of the total loss, called "loss".
        metrics: the `CompileMetrics`; None when there are none.
        targets: settled by `at` or by a trace.
    """

    def __init__(self, model: Any, arguments: CompileArguments):
        self.model, self.arguments = model, arguments
        self.tracker = Mean(name="loss")
        wanted = arguments.metrics is not None or arguments.weighted_metrics is not None
        self.metrics = CompileMetrics(self) if wanted else None
        self.trackers: dict[str, Mean] = {}
        self.targets: Targets | None = None

    @property
    def terms(self) -> tuple:
        return self.targets.metrics if self.targets is not None else ()

    def settle(self, targets: Targets) -> None:
        """Takes the targets that a model was traced with."""
        self.targets = targets
        names = [term.name for term in targets.losses] if targets.reports_each_loss else []
        self.trackers = {name: self.trackers.get(name) or Mean(name=name.partition("#")[0]) for name in names}

    def at(self, y: Any, y_pred: Any, sample_weight: Any) -> tuple[Targets, list, list, list]:
        """The targets, and each output with its labels and weights."""
        from .trace import are_named, output_names

        names = output_names(self.model, y_pred)
        flat = tree.flatten(y_pred)
        labels, weights = aligned(self.arguments, y, sample_weight, y_pred, names)
        if self.targets is None:
            shapes = [None if a is None else _shape(a) for a in labels]
            known = [_shape(p) for p in flat]
            self.settle(resolve_targets(self.arguments, y_pred, names, shapes, known, are_named(self.model, y_pred)))
        assert self.targets is not None
        return self.targets, flat, labels, weights

    def loss(self, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The weighted sum of the losses; None without a loss. Keeps each one's mean when there are several."""
        if self.arguments.loss is None:
            return None
        targets, flat, labels, weights = self.at(y, y_pred, sample_weight)
        total = None
        for term in targets.losses:
            value = ops.cast(
                term.loss(term.of(labels), term.of(flat), weights[term.index]), _float_of(flat[term.index])
            )
            tracker = self.trackers.get(term.name)
            if tracker is not None:
                tracker.update_state(value, sample_weight=int(flat[term.index].shape[0]))
            if term.weight is not None:
                value = value * term.weight
            total = value if total is None else total + value
        return total

    def assign(self, layout: Any, sums: Any) -> None:
        """Sets the states of all metrics from a loop's sums."""
        if self.targets is None:
            return
        start = layout.sums[0].offset if layout.sums else 0
        values = {e.name: sums[e.offset - start : e.end - start].reshape(e.shape) for e in layout.sums}
        for term in self.targets.metrics:
            for name, variable in term.metric.states().items():
                if f"{term.name}/{name}" in values:
                    variable.assign(values[f"{term.name}/{name}"])
        for name, tracker in {"loss": self.tracker, **self.trackers}.items():
            if f"{name}/total" in values:
                tracker.total.assign(values[f"{name}/total"])
                tracker.count.assign(values["loss/count"])


def result_of(metric: Metric) -> Any:
    """The result; 0 where it cannot be computed from JAX's tracers (the loop computes it again from the states)."""
    import jax

    try:
        return metric.result()
    except jax.errors.TracerArrayConversionError:
        return ops.zeros(())


def _shape(value: Any) -> tuple:
    return tuple(d if isinstance(d, int) else None for d in value.shape)


def _float_of(value: Any) -> str:
    return "float32"
