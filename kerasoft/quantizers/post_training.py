"""post_training: a trained model as one of 8-bit integers, with ranges measured on sample rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import tree
from ..compiler import quantisation as q8
from ..compiler.ir import Graph, Node
from ..compiler.passes.pad_into_convolution import PadIntoConvolution
from ..compiler.passes.pipeline import run_passes
from ..data.kinds import is_distributed
from ..export.forward import Forward, signature_of, trace_forward
from ..layers.input_layer import Input
from ..models.functional import Functional
from .graph_layer import QuantizedGraph
from .report import LayerReport, QuantizationReport
from .rows import merged

METHODS = ("minmax", "mse")


def post_training(
    model: Any,
    calibration_data: Any,
    *,
    accuracy_guard: float | None = 0.01,
    validation_data: Any = None,
    metric: str | None = None,
    method: str = "minmax",
    filters: Any = None,
    batch_size: int = 32,
    feature_cols: Any = None,
    label_cols: Any = None,
) -> tuple[Any, QuantizationReport]:
    """A model that computes convolutions and products in 8-bit integers; `model` stays as it is.

    Kernels become int8 with one scale for each output channel, activations uint8 or int8 with one scale for each tensor,
    from the ranges that the calibration rows give; sums are int32. Batch normalisation, bias, addition and relu after a
    convolution are computed with it, and values stay integers between neighbours. Everything else stays float32.

    Args:
        model: a built model.
        calibration_data: some hundred rows like those to come: arrays in the structure of the inputs, an RDD or a
            DataFrame, which are measured on the executors.
        accuracy_guard: what int8 may cost at most. Layers that lose most are left in float32 until it is kept. None
            switches the guard off. The cost is what `metric` loses on `validation_data`; without that, the share of the
            calibration rows whose class changes, or for outputs that are no classes, their squared error over their variance.
        validation_data: ``(x, y)``, an RDD or a DataFrame with labels, as for `evaluate`; the model must be compiled.
        metric: name in `evaluate`'s results, the first metric (else "loss") by default.
        method: how a range is found: "minmax", or "mse", which cuts off outliers where that makes the squared error smaller.
        filters: which layers to quantise: a regular expression on their names, a list of them, or a function of a name.
        batch_size: rows of a call.
        feature_cols, label_cols: columns of DataFrames.

    Returns:
        the quantised model and a report, which can be printed.

    Raises:
        ValueError: a model that has nothing to quantise, or an unknown method or metric.

    >>> import numpy as np, kerasoft as ks
    >>> model = ks.Sequential([ks.Input((8,)), ks.layers.Dense(16, activation="relu"), ks.layers.Dense(2)])
    >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    >>> small, report = ks.quantizers.post_training(model, x)
    >>> bool(np.abs(small.predict(x, verbose=0) - model.predict(x, verbose=0)).max() < 0.1)
    True
    >>> report.left_in_float
    ()
    """
    if method not in METHODS:
        raise ValueError(f"post_training: method is one of {', '.join(METHODS)}, got {method!r}")
    run = _Run(model, calibration_data, batch_size, feature_cols)
    run.calibrate(method)
    chosen = [i for i, region in enumerate(run.regions) if _is_chosen(region.name, filters)]
    why = {i: "not among `filters`" for i in range(len(run.regions)) if i not in chosen}
    if validation_data is None:
        measure, cost_of = run.compared()
    else:
        measure, cost_of = run.evaluated(validation_data, metric, feature_cols, label_cols)
    graph = run.quantised(chosen)
    cost = cost_of(graph)
    by_error = sorted(chosen, key=lambda i: run.errors[i])
    while accuracy_guard is not None and cost > accuracy_guard and by_error:
        worst = by_error.pop()
        why[worst] = f"int8 cost {cost:.4g}"
        chosen.remove(worst)
        graph = run.quantised(chosen)
        cost = cost_of(graph)
    report = run.report(set(chosen), why, measure, cost, accuracy_guard)
    made = run.model_of(graph, report)
    if model.compiled:
        made.compile_from_config(model.get_compile_config())
    return made, report


def _is_chosen(name: str, filters: Any) -> bool:
    if filters is None:
        return True
    if callable(filters):
        return bool(filters(name))
    return any(re.search(pattern, name) for pattern in ([filters] if isinstance(filters, str) else filters))


class _Run:
    """One quantisation.

    Attributes:
        graph: of the float model, batch normalisation and padding not yet in the regions.
        regions: what can be quantised.
        errors: of each region alone, relative.
    """

    def __init__(self, model: Any, data: Any, batch_size: int, feature_cols: Any):
        self.model, self.data, self.batch_size, self.feature_cols = model, data, batch_size, feature_cols
        self.forward: Forward = trace_forward(model, signature_of(model), "update")
        self.graph = run_passes(self.forward.graph, (PadIntoConvolution(),))
        self.values = {name: variable.numpy() for name, variable in self.forward.params.items()}
        self.weights = q8.Weights(self.graph, self.values)
        self.regions = q8.find_regions(self.graph, self.weights)
        if not self.regions:
            raise ValueError(
                f"post_training: model '{model.name}' has no convolution or product of activations with weights to quantise"
            )
        self.plan = q8.Plan(self.graph, self.regions)
        self.errors: list[float] = []
        self.ranges: dict[Node, tuple[float, float]] = {}

    # --- models of graphs ---

    def model_of(self, graph: Graph, report: QuantizationReport | None = None, structure: Any = None) -> Any:
        """A functional model that computes `graph` from inputs like those of the float model."""
        settled, params = q8.settled(graph, self.weights)
        structure = self.forward.structure if structure is None else structure
        data = None if report is None else report.to_json()
        layer = QuantizedGraph.of(settled, params, structure, data, name="int8")
        return self._functional(layer, self.model.name if report is not None else None)

    def _measuring(self, graph: Graph) -> Any:
        """The model of a graph that measures; its weights are params, so that nothing large is compiled in."""
        used = {n.attrs["name"] for n in graph.params}
        values = {name: value for name, value in self.values.items() if name in used and value.dtype == np.float32}
        layer = QuantizedGraph.of(graph, values, "one", name="measured")
        return self._functional(layer, None)

    def _functional(self, layer: Any, name: str | None) -> Any:
        signature = signature_of(self.model)
        names = iter(self.forward.inputs)
        inputs = tree.map_structure(
            lambda x: Input(tuple(x.shape[1:]), dtype=x.dtype, name=next(names)["name"]), signature
        )
        return Functional(inputs, layer(inputs), name=name)

    def _merged(self, graph: Graph, merge: str) -> np.ndarray:
        return merged(self._measuring(graph), self.data, merge, self.batch_size, self.feature_cols)

    # --- what is measured ---

    def calibrate(self, method: str) -> None:
        """Finds ranges and the errors of single regions."""
        sources = self.plan.sources
        graph = q8.row_ranges(self.graph, sources)
        measuring = self._measuring(graph)
        low, high = (
            merged(measuring, self.data, merge, self.batch_size, self.feature_cols)[start::2]
            for merge, start in (("min", 0), ("max", 1))
        )
        bad = [n for n, a, b in zip(sources, low, high, strict=True) if not np.isfinite([a, b]).all()]
        if bad:
            raise ValueError(
                f"post_training: {bad[0]!r} is not finite on the calibration rows; check them for NaN and infinity"
            )
        self.ranges = {n: (float(a), float(b)) for n, a, b in zip(sources, low, high, strict=True)}
        self.scales = self.plan.scales(self.ranges)
        if method == "mse":
            self._clip()
        sums = self._merged(q8.local_errors(self.graph, self.regions, self.scales), "sum")
        self.errors = [float(np.sqrt(e / s)) if s > 0 else 0.0 for e, s in sums.reshape(-1, 2)]

    def _clip(self) -> None:
        """Makes ranges smaller where the squared error becomes smaller."""
        from ..compiler.quantisation.measure import CLIPS

        sums = self._merged(q8.row_errors(self.graph, self.plan.sources, self.scales), "sum")
        for n, errors in zip(self.plan.sources, sums.reshape(-1, len(CLIPS)), strict=True):
            limit = (
                CLIPS[int(np.argmin(errors))] * self.scales[n].value * {"uint8": 255, "int8": 127}[self.scales[n].dtype]
            )
            low, high = self.ranges[n]
            self.ranges[n] = (max(low, -limit), min(high, limit))
        self.scales = self.plan.scales(self.ranges)

    def quantised(self, chosen: list[int]) -> Graph:
        plan = q8.Plan(self.graph, [self.regions[i] for i in chosen])
        return q8.quantised_graph(self.graph, plan, plan.scales(self.ranges))

    # --- what it costs ---

    def compared(self) -> tuple[str, Any]:
        """The cost of a graph by its outputs on the calibration rows."""
        classes = _gives_classes(self.forward.graph)

        def cost(graph: Graph) -> float:
            sums = self._merged(q8.compare(self.graph, graph, classes), "sum")
            differ, rest = sums[0], sums[1:].reshape(-1, 4)
            if classes:
                return float(differ / self._row_count(rest))
            spread = rest[:, 2] - rest[:, 1] ** 2 / np.maximum(rest[:, 3], 1)
            return float(np.max(rest[:, 0] / np.maximum(spread, 1e-12)))

        return ("classes" if classes else "variance"), cost

    def _row_count(self, rest: np.ndarray) -> float:
        """Rows of the calibration data: numbers of the first output, by its width."""
        return float(rest[0, 3]) / float(np.prod(self.forward.graph.outputs[0].shape[1:]))

    def evaluated(self, data: Any, metric: str | None, feature_cols: Any, label_cols: Any) -> tuple[str, Any]:
        """The cost of a graph by what a metric loses."""
        if not self.model.compiled:
            raise ValueError(
                "post_training: validation_data needs a compiled model: call compile(loss=..., metrics=...)"
            )
        options: dict[str, Any] = {"batch_size": self.batch_size, "verbose": 0, "return_dict": True}
        if is_distributed(data):
            args: tuple = (data,)
            options |= {"feature_cols": feature_cols, "label_cols": label_cols}
        else:
            args = tuple(data)[:2]
            if len(data) > 2:
                options["sample_weight"] = data[2]
        before = self.model.evaluate(*args, **options)
        name = metric or next((n for n in before if n != "loss"), "loss")
        if name not in before:
            raise ValueError(f"post_training: evaluate gives {', '.join(before)}, not metric={name!r}")
        more_is_better = self.model._metric_directions().get(name) == "max"

        def cost(graph: Graph) -> float:
            model = self.model_of(graph)
            model.compile_from_config(self.model.get_compile_config())
            lost = before[name] - model.evaluate(*args, **options)[name]
            return float(lost if more_is_better else -lost)

        return name, cost

    def report(
        self, chosen: set[int], why: Mapping[int, str], measure: str, cost: float, guard: float | None
    ) -> QuantizationReport:
        layers, saved = [], 0
        for i, region in enumerate(self.regions):
            low, high = self._range_of(region.x)
            kept = region.kernel.size
            layers.append(LayerReport(region.name, i not in chosen, self.errors[i], kept, low, high, why.get(i, "")))
            saved += 3 * kept if i in chosen else 0
        before = sum(v.nbytes for v in self.values.values())
        return QuantizationReport(tuple(layers), measure, cost, guard, before, before - saved)

    def _range_of(self, n: Node) -> tuple[float, float]:
        scale = self.scales[n]
        low, high = {"uint8": (0, 255), "int8": (-127, 127)}[scale.dtype]
        return low * scale.value, high * scale.value


def _gives_classes(graph: Graph) -> bool:
    first = graph.outputs[0]
    return (
        len(graph.outputs) == 1
        and first.op.name in ("softmax", "log_softmax")
        and first.ndim == 2
        and first.shape[1] > 1
    )
