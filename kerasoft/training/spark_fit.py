"""What `fit`, `evaluate` and `predict` do with RDDs and DataFrames: blocks of rows, then a strategy, or a scoring job."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import tree
from ..callbacks.base import plain_logs
from ..compiler.costs import peak_bytes
from ..compiler.kernels.settings import leaving_out
from ..compiler.program import footprint
from ..data.blocks import BlockRDD, persisted
from ..data.kinds import is_dataframe
from ..data.reader import RowReader
from ..runtime.loop import Event, Profile, TrainJob
from ..runtime.shards import Plan
from . import checks
from .hooks import FitHooks
from .local_fit import _callback_list
from .spark_rows import Rows, common_widths
from .status import Status

SCORING_ROWS = 256  # of one call when `batch_size` is not given
SCORING_WIDTHS = (16, 64, 256, 1024, 4096, 16384, 65536)  # numbers of a sparse row that calls are compiled for


def fit_spark(
    model: Any,
    x: Any,
    batch_size: Any,
    epochs: int,
    verbose: Any,
    callbacks: Any,
    validation_data: Any,
    shuffle: Any,
    initial_epoch: int,
    steps_per_epoch: int | None,
    validation_freq: Any,
    seed: int | None,
    strategy: Any,
    feature_cols: Any,
    label_cols: Any,
    **unused: Any,
) -> Any:
    """`Trainer.fit` on an RDD or a DataFrame."""
    from ..runtime import AllReduce, spark

    begin = time.perf_counter()
    for name in ("sample_weight", "validation_steps", "validation_batch_size"):
        if unused.get(name) is not None:
            raise ValueError(f"`{name}` cannot be given with an RDD or a DataFrame: {_REASONS[name]}.")
    checks.check_validation_freq(validation_freq)
    checks.check_no_kept_states(model)
    size = checks.batch_size_of(batch_size)
    strategy = AllReduce() if strategy is None else strategy
    context = context_of(x)
    report = strategy.preflight(context)
    checked_s = time.perf_counter() - begin
    rows = Rows(model, x, feature_cols, label_cols)
    held_out = None if validation_data is None else Rows(model, validation_data, feature_cols, label_cols)
    parts = ("train",) if held_out is None else ("train", "test")
    program = rows.settle(parts)
    if held_out is not None:
        held_out.like(rows)
    traced_s = time.perf_counter() - begin - checked_s
    both = [rows] if held_out is None else [rows, held_out]
    widths = common_widths(both)
    data = rows.blocks(strategy.shards, widths)
    validation = None if held_out is None else held_out.blocks(None, widths)
    for measured in both:
        measured.forget()
    rows.lengths |= {rows.symbols[name]: width for name, width in widths.items()}
    read_s = time.perf_counter() - begin - checked_s - traced_s
    source = program.source
    _check_memory(strategy, report, source, size, rows.lengths, [data, *([validation] if validation else [])])
    seed = int(np.random.randint(0, 2**31 - 1)) if seed is None else int(seed)
    status = model._trainer.status = Status(seed=seed, source=source)
    steps = Plan(data.table.rows, size, steps_per_epoch).steps
    callbacks = _callback_list(model, callbacks, verbose, epochs, steps, history=True)
    checks.refuse_in_cluster(callbacks.callbacks)
    hooks = FitHooks(model, callbacks, program.traced.targets, source.layout, program.store, status, in_process=False)
    optimizer = model.optimizer
    model.stop_training = False
    callbacks.on_train_begin()
    hooks.on_event(Event("preflight", str(report)))
    resume, model._resume = model._resume, None
    if resume is not None:
        initial_epoch, seed = resume["epoch"], resume["seed"]
        status.seed = seed
        if resume["batch"]:
            hooks.carry(resume["sums"], resume["rows"])
    params, state = program.store.read()
    job = TrainJob(
        source=source,
        params=params,
        state=state,
        slots=optimizer.variables_to_slots(source.layout),
        iteration=int(optimizer._iterations.numpy()),
        batch_size=size,
        epochs=epochs,
        initial_epoch=initial_epoch,
        seed=seed,
        shuffle=bool(shuffle),
        validation_freq=validation_freq,
        steps_per_epoch=steps_per_epoch,
        initial_step=resume["batch"] if resume else 0,
        placement=placement_of(model),
    )
    model._trainer.hooks = hooks
    prepared_s = time.perf_counter() - begin
    try:
        with leaving_out(report.left_out):
            result = spark.run(job, data, validation, strategy, hooks)
        program.store.write(result.params, result.state)
        optimizer.slots_to_variables(source.layout, result.slots, result.iteration)
        if epochs > initial_epoch:
            optimizer.finalize_variable_values(model.trainable_weights)
    finally:
        model._trainer.hooks = None
        model._trainer.events = hooks.events
        data.unpersist()
        if validation is not None:
            validation.unpersist()
    callbacks.on_train_end(dict(hooks.logs))
    seconds = {phase: s for phase, s in result.profile.seconds.items() if phase != "other"}
    for phase, s in (("ingest", read_s), ("compile", traced_s), ("scheduling", checked_s)):
        seconds[phase] = seconds.get(phase, 0.0) + s
    seconds["callbacks"] = seconds.get("callbacks", 0.0) + prepared_s - checked_s - traced_s - read_s
    model._trainer.profile = dataclasses.replace(
        Profile.of(time.perf_counter() - begin, seconds),
        steps=result.profile.steps,
        rows=result.profile.rows,
        workers=result.profile.workers,
        by_worker=result.profile.by_worker,
    )
    return model.history


def placement_of(model: Any) -> dict[str, Any]:
    """Where the user wants layers of a model that is cut: each layer's attribute `placement`, by the layer's name."""
    found = {layer.name: getattr(layer, "placement", None) for layer in model._flatten_layers()}
    return {name: value for name, value in found.items() if value is not None}


def _check_memory(strategy: Any, report: Any, source: Any, batch_size: int, lengths: dict, data: list) -> None:
    """Lets the strategy compare what a worker will need with what it has; frees the blocks if that is too little."""
    workers = max(len(report.hosts), 1)
    layout, graph, by_rows = source.layout, source.optimised("train"), {}
    if names := strategy.tables_by_rows(source, batch_size):
        found = footprint(source, names, batch_size)
        graph, by_rows = found.graph, {"tables": found.tables, "touched": found.touched}
    step_bytes = peak_bytes(graph, {"b": -(-batch_size // workers), **lengths})
    try:
        strategy.check_memory(
            report, layout.P, layout.V, len(source.slots), sum(sum(d.table.bytes) for d in data), step_bytes, **by_rows
        )
    except BaseException:
        for blocks in data:
            blocks.unpersist()
        raise


_REASONS = {
    "sample_weight": "add the weight to the rows, as (x, y, weight)",
    "validation_steps": "all rows are validated on; take a part of the RDD instead",
    "validation_batch_size": "validation uses batch_size",
}


def evaluate_spark(model: Any, x: Any, batch_size: Any, feature_cols: Any, label_cols: Any) -> dict[str, Any]:
    """`Trainer.evaluate` on an RDD or a DataFrame; the logs. One Spark job over the rows."""
    from ..data.scoring import Scorer, evaluate_records

    rows = Rows(model, x, feature_cols, label_cols)
    program = rows.settle(("test",))
    size = SCORING_ROWS if batch_size is None else checks.batch_size_of(batch_size)
    source, records = program.source, rows.records()
    sizes, data = (size,), None
    if source.flags.exact_rows:  # never padded: the sizes of the last batches must be known
        data = persisted(records)
        sizes = tuple(sorted({size, *(n % size for n in data.table.rows if n % size)}))
        records = data.rdd
    params, state = program.store.read()
    scorer = Scorer(context_of(x), _exported(source, rows, test_rows=sizes), params, state, size, list(rows.symbols))
    try:
        sums = evaluate_records(records, scorer)
    finally:
        scorer.close()
        if data is not None:
            data.unpersist()
    return plain_logs(program.traced.targets.logs(source.layout, sums))


def predict_spark(model: Any, x: Any, batch_size: Any, feature_cols: Any, output_col: str = "prediction") -> Any:
    """`Trainer.predict` on an RDD (a lazy RDD) or a DataFrame (itself with one more column)."""
    from ..data.dataframe import ColumnReader
    from ..data.predicted import with_predictions
    from ..data.scoring import Scorer, predict_rows

    rows = Rows(model, x, feature_cols, None, labels=False)
    program = rows.settle(("predict",))
    source = program.source
    if source.flags.exact_rows:
        raise ValueError(
            f"{type(model).__name__} '{model.name}' mixes the rows of a batch (by {program.traced.coupled_by!r}), so its "
            "prediction for a row would depend on the rows beside it; collect the rows and predict on arrays."
        )
    size = SCORING_ROWS if batch_size is None else checks.batch_size_of(batch_size)
    params, state = program.store.read()
    exported = _exported(source, rows, predict_rows=(size,))
    scorer = Scorer(context_of(x), exported, params, state, size, list(rows.symbols))
    if is_dataframe(x):
        reader = ColumnReader(rows.columns, rows.data.columns, rows.feature_cols)
        scored = with_predictions(rows.data, reader, outputs_of(program), scorer.predict, output_col)
        return scored if rows.data is x else scored.drop(*rows.feature_cols)
    reader = RowReader(rows.columns, rows.feature_cols)
    return predict_rows(rows.data, reader, scorer, functools.partial(restored, program.traced.outputs))


def outputs_of(program: Any) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape of one row and dtype of each of the model's outputs."""
    traced, nodes = program.traced, program.source.predict.outputs
    return [
        (name, tuple(int(d) for d in shape[1:]), node.dtype)
        for name, shape, node in zip(traced.output_names, traced.output_shapes, nodes, strict=True)
    ]


def _exported(source: Any, rows: Rows, **sizes: Sequence[int]) -> dict[int, Any]:
    """A program for each width that packed sparse rows may have, by it; else one."""
    most = max((c.columns for c in rows.columns if c.columns is not None), default=0)
    found = {}
    for width in SCORING_WIDTHS if most else (0,):
        lengths = rows.lengths | dict.fromkeys(rows.symbols.values(), min(width, most))
        found[min(width, most)] = source.export(**sizes, lengths=lengths)
        if width >= most:
            break
    return found


def restored(structure: Any, leaves: Sequence[np.ndarray]) -> Any:
    """One row's outputs in the structure of the model's outputs."""
    return tree.pack_as(structure, list(leaves))


def context_of(x: Any) -> Any:
    """The SparkContext of an RDD, a DataFrame or a `BlockRDD`.

    Raises:
        ValueError: the DataFrame belongs to Spark Connect.
    """
    if isinstance(x, BlockRDD):
        return x.rdd.context
    if type(x).__module__.startswith("pyspark.sql.connect"):
        raise ValueError(
            "a DataFrame of Spark Connect has no SparkContext, which training and scoring need; use a classic session: "
            "SparkSession.builder.master(...) or spark-submit without --remote."
        )
    return x.sparkSession.sparkContext if is_dataframe(x) else x.context
