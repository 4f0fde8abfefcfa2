"""Targets: which loss, weight and metrics belong to which output, and what they are called in the logs.

Outputs, labels, sample weights, losses and metrics may be one thing, a list, a dict by output name or a deeper nest. All
are flattened here, once, in the order of the flattened outputs; the graphs and the logs know only the flat lists.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import losses as losses_module
from .. import metrics as metrics_module
from .. import tree
from .nested_losses import is_nested_loss, loss_places, no_such_output


@dataclasses.dataclass(frozen=True)
class CompileArguments:
    """What `compile` was given, as it was given."""

    loss: Any = None
    loss_weights: Any = None
    metrics: Any = None
    weighted_metrics: Any = None


@dataclasses.dataclass(frozen=True)
class LossTerm:
    """The loss of output `index`: `name` is ``<output>_loss``, with a number behind it if it is taken.

    A loss of several outputs has them in `part`, a structure of indices.
    """

    name: str
    index: int
    loss: Any
    weight: float | None
    part: Any = None

    @property
    def shown(self) -> str:
        """The name in logs; of losses that share one, the last is seen, as with Keras."""
        return self.name.partition("#")[0]

    def of(self, values: Sequence) -> Any:
        """Those of `values`, one for each flattened output, that the loss is of."""
        return values[self.index] if self.part is None else tree.map_structure(lambda i: values[i], self.part)


@dataclasses.dataclass(frozen=True)
class MetricTerm:
    """A metric of output `index`, called `name` in logs; `weighted`: it sees the sample weights."""

    name: str
    index: int
    metric: Any
    weighted: bool


@dataclasses.dataclass(frozen=True)
class Targets:
    """Losses and metrics by output, and the values in the logs computed from a step's sums."""

    output_names: tuple[str, ...]
    losses: tuple[LossTerm, ...]
    metrics: tuple[MetricTerm, ...]

    @property
    def reports_each_loss(self) -> bool:
        """Several losses are also reported one by one."""
        return len(self.losses) > 1

    def logs(self, layout: Any, sums: np.ndarray) -> dict[str, Any]:
        """The logs for float64 sums over any steps, in the order loss, metrics, each output's loss.

        Args:
            layout: of the step; its `sums` say what stands where.
        """
        start = layout.sums[0].offset if layout.sums else 0
        by_name = {e.name: sums[e.offset - start : e.end - start].reshape(e.shape) for e in layout.sums}
        count = max(float(by_name["loss/count"]), 1e-30)
        logs: dict[str, Any] = {"loss": float(by_name["loss/total"]) / count}
        for term in self.metrics:
            prefix = f"{term.name}/"
            result = term.metric.result_from({n[len(prefix) :]: v for n, v in by_name.items() if n.startswith(prefix)})
            if isinstance(result, np.ndarray):
                result = result.astype(np.float32)
            logs.update(result if isinstance(result, dict) else {term.name: result})
        if self.reports_each_loss:
            for loss in self.losses:
                logs[loss.shown] = float(by_name[f"{loss.name}/total"]) / count
        return logs

    def fits(self, output_names: tuple[str, ...], label_shapes: Sequence[tuple | None]) -> bool:
        """Whether these targets are those of such outputs and labels too."""
        needed = {term.index for term in (*self.losses, *self.metrics)}
        needed |= {i for term in self.losses if term.part is not None for i in tree.flatten(term.part)}
        return tuple(output_names) == self.output_names and all(label_shapes[i] is not None for i in needed)


def resolve_targets(
    given: CompileArguments,
    outputs: Any,
    output_names: Sequence[str],
    label_shapes: Sequence[tuple | None],
    output_shapes: Sequence[tuple],
    named_outputs: bool = True,
) -> Targets:
    """The targets of a model.

    Args:
        outputs: the structure of the model's outputs (its leaves do not matter).
        output_names: names of the flattened outputs.
        label_shapes: of the labels that belong to them, None where there are none.
        output_shapes: of the flattened outputs.
        named_outputs: whether losses and metrics are called by their outputs; else by their own names.

    Raises:
        ValueError: the structure of an argument does not fit the outputs, or a name is unknown.
    """
    names = tuple(output_names)
    several = len(names) > 1 and named_outputs
    terms: list[LossTerm] = []
    for i, part, loss, weight, label in _places(given, outputs, names, named_outputs):
        if any(label_shapes[k] is None for k in ([i] if part is None else tree.flatten(part))):
            raise ValueError(
                f"output '{names[i]}' has the loss {named(loss)} but no labels: `y` holds none for it. "
                f"Give labels for every output with a loss, or loss=None for that output."
            )
        resolved = losses_module.resolve(loss, label_shapes[i], output_shapes[i])
        weight = None if weight is None else float(weight)
        name = f"{label or (loss if isinstance(loss, str) else resolved.name)}_loss"
        alike = sum(t.shown == name for t in terms)
        terms.append(LossTerm(f"{name}#{alike}" if alike else name, i, resolved, weight, part))
    taken: dict[str, int] = {}
    plain = _metric_terms(given.metrics, "metrics", outputs, names, label_shapes, output_shapes, several, taken)
    weighted = _metric_terms(
        given.weighted_metrics, "weighted_metrics", outputs, names, label_shapes, output_shapes, several, taken
    )
    return Targets(names, tuple(terms), (*plain, *weighted))


def _places(given: CompileArguments, outputs: Any, names: tuple, named_outputs: bool) -> Iterator[tuple]:
    """``(index, part, loss, weight, label)`` of each loss; `part` is None for a loss of one output."""
    if is_nested_loss(given.loss, _fits(given.loss, outputs)):
        for place in loss_places(given.loss, given.loss_weights, outputs, names if named_outputs else None):
            is_part = tree.is_nested(place.part)
            first = tree.flatten(place.part)[0]
            yield first, place.part if is_part else None, place.loss, place.weight, place.label
        return
    losses = by_output(given.loss, outputs, names, "loss", broadcast=True)
    weights = by_output(given.loss_weights, outputs, names, "loss_weights", broadcast=False)
    for i, (loss, weight) in enumerate(zip(losses, weights, strict=True)):
        loss = loss[0] if isinstance(loss, (list, tuple)) else loss
        if loss is not None:
            yield i, None, loss, weight, names[i] if named_outputs else ""


def _metric_terms(given, argument, outputs, names, label_shapes, output_shapes, several, taken) -> list[MetricTerm]:
    weighted = argument == "weighted_metrics"
    if not given:
        return []
    if not isinstance(given, (list, tuple, dict)):
        raise ValueError(
            f"Expected `{argument}` argument to be a list, tuple, or dict. "
            f"Received instead: {argument}={given} of type {type(given)}"
        )
    if len(names) == 1:
        per_output = [tree.flatten(given)]
    else:
        per_output = by_output(given, outputs, names, argument, broadcast=False)
    terms = []
    for i, metrics in enumerate(per_output):
        for metric in metrics if isinstance(metrics, (list, tuple)) else [metrics]:
            if metric is None:
                continue
            if label_shapes[i] is None:
                raise ValueError(
                    f"output '{names[i]}' has the metric {named(metric)} but no labels: `y` holds none for it."
                )
            resolved = metrics_module.resolve(metric, label_shapes[i], output_shapes[i])
            name = f"{names[i]}_{resolved.name}" if several else resolved.name
            terms.append(
                MetricTerm(_unique(name, resolved.name, names[i], several, weighted, taken), i, resolved, weighted)
            )
    return terms


def _unique(name: str, short: str, output: str, several: bool, weighted: bool, taken: dict[str, int]) -> str:
    """Keras's names of metrics that clash: `acc_1`; a weighted one becomes `weighted_acc` first."""
    if name not in taken:
        taken[name] = 1
        return name
    if weighted:
        name = f"{output}_weighted_{short}" if several else f"weighted_{short}"
        if name not in taken:
            taken[name] = 1
            return name
    taken[name] += 1
    return f"{name}_{taken[name] - 1}"


def by_output(given: Any, outputs: Any, names: Sequence[str], argument: str, broadcast: bool) -> list:
    """One entry of an argument of `compile` for each flattened output, None where it says nothing.

    Args:
        broadcast: a single value goes to every output.

    Raises:
        ValueError: it does not fit the outputs; names them.
    """
    count = len(names)
    if given is None:
        return [None] * count
    if isinstance(given, dict) and not isinstance(given, tuple):
        known = _keys(outputs, names)
        unknown = [key for key in given if key not in known]
        if unknown and not _fits(given, outputs):
            close = difflib.get_close_matches(str(unknown[0]), list(known), 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            text = f"{unknown[0]!r} is no output of the model; its outputs are {list(known)}.{hint}"
            if argument == "loss" and isinstance(outputs, dict):
                raise no_such_output((unknown[0],), f" {text}")
            if argument == "loss":
                raise ValueError(
                    f"Expected keys {list(names)} in loss dict, but found loss.keys()={list(given)}: {text}"
                )
            raise ValueError(
                f"Invalid `{argument}`. `{argument}` should contain one entry for each output and either be a dict or a list "
                f"matching the output names of the model {list(names)} or match the output structure of the model.\n"
                f"Received: {argument}={given}: {text}"
            )
        if not unknown:
            found: list = [None] * count
            for key, value in given.items():
                found[known[key]] = value
            return found
        return tree.flatten(given)
    if isinstance(given, (list, tuple)):
        if len(given) == count:
            return list(given)
        if _fits(given, outputs):
            return tree.flatten(given)
        raise ValueError(
            f"`{argument}` is a list of {len(given)} for {count} output(s) {list(names)}: it needs one entry an output, "
            f"None for an output without."
        )
    if broadcast or count == 1:
        return [given] * count
    raise ValueError(
        f"`{argument}` must be a list or a dict for a model with the outputs {list(names)}. Received: {argument}={given}"
    )


def _keys(outputs: Any, names: Sequence[str]) -> dict[Any, int]:
    """Index of the flattened output for each key by which it may be called."""
    known = {name: i for i, name in enumerate(names)}
    if isinstance(outputs, dict) and not any(map(tree.is_nested, outputs.values())):
        known |= {key: i for i, key in enumerate(sorted(outputs))}
    return known


def _fits(given: Any, outputs: Any) -> bool:
    """Whether `given` has the structure of the outputs, whatever stands at the leaves."""
    if isinstance(outputs, dict):
        return (
            isinstance(given, dict) and set(given) == set(outputs) and all(_fits(given[k], outputs[k]) for k in outputs)
        )
    if isinstance(outputs, (list, tuple)):
        same = isinstance(given, (list, tuple)) and len(given) == len(outputs)
        return same and all(_fits(g, o) for g, o in zip(given, outputs, strict=True))
    return not tree.is_nested(given)


def match(values: Any, outputs: Any, names: Sequence[str], has_loss: Sequence[bool], what: str) -> list:
    """The leaf of `values` (labels or sample weights) that belongs to each flattened output, None where there is none.

    Args:
        has_loss: which outputs have a loss; labels may be given for these alone.
        what: "y" or "sample_weight", for errors.

    Raises:
        ValueError: the structures differ; shows both.
    """
    count = len(names)
    if values is None:
        return [None] * count
    if isinstance(values, dict):
        known = _keys(outputs, names)
        if all(key in known for key in values) and not any(map(tree.is_nested, values.values())):
            found: list = [None] * count
            for key, value in values.items():
                found[known[key]] = value
            return found
    leaves = tree.flatten(values)
    if len(leaves) == count and (not isinstance(values, dict) or _fits(values, outputs) or count == 1):
        return leaves
    if what == "sample_weight" and len(leaves) == 1:
        return leaves * count
    if len(leaves) == sum(has_loss) and not isinstance(values, dict):
        remaining = iter(leaves)
        return [next(remaining) if has else None for has in has_loss]
    raise ValueError(
        f"{'y_true' if what == 'y' else what} and y_pred have different structures.\n"
        f"{'y_true' if what == 'y' else what}: {tree.map_structure(lambda _: '*', values)}\n"
        f"y_pred: {tree.map_structure(lambda _: '*', outputs)} (outputs {list(names)})"
    )


def named(thing: Any) -> str:
    """What to call a loss or a metric in an error."""
    name = thing if isinstance(thing, str) else getattr(thing, "name", None) or getattr(thing, "__name__", None)
    return f"'{name}'" if name else repr(thing)
