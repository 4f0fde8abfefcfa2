"""`evaluate` and `predict` of RDDs and DataFrames with a model that a strategy cuts among workers."""

from __future__ import annotations

import functools
from typing import Any

from ..callbacks.base import plain_logs
from ..data.blocks import persisted
from ..data.cut_scoring import CutScorer, evaluate_cut, predict_frame, predict_rows
from ..data.dataframe import ColumnReader
from ..data.kinds import is_dataframe
from ..data.reader import RowReader
from . import checks
from .spark_fit import SCORING_ROWS, context_of, outputs_of, placement_of, restored
from .spark_rows import Rows


def evaluate_with(
    strategy: Any, model: Any, x: Any, batch_size: Any, feature_cols: Any, label_cols: Any
) -> dict[str, Any]:
    """`Trainer.evaluate(rdd, strategy=)`; the logs. One barrier job over the rows."""
    rows = Rows(model, x, feature_cols, label_cols)
    program = rows.settle(("test", "predict"))
    data = persisted(rows.records(), None)
    try:
        scorer = _scorer(strategy, model, rows, program, batch_size, "test")
        try:
            sums = evaluate_cut(data.rdd, scorer)
        finally:
            scorer.close()
    finally:
        data.unpersist()
    return plain_logs(program.traced.targets.logs(program.source.layout, sums))


def predict_with(
    strategy: Any, model: Any, x: Any, batch_size: Any, feature_cols: Any, output_col: str = "prediction"
) -> Any:
    """`Trainer.predict(strategy=)` of an RDD (a lazy RDD of one prediction a row) or a DataFrame (itself with one more column)."""
    if is_dataframe(x) and x.isStreaming:
        raise ValueError(
            "predict(strategy=) takes an RDD or a DataFrame, got a stream: a cut model is scored in one job. Leave strategy= "
            "out, or use it within foreachBatch."
        )
    rows = Rows(model, x, feature_cols, None, labels=False)
    program = rows.settle(("predict",))
    scorer = _scorer(strategy, model, rows, program, batch_size, "predict")
    if is_dataframe(x):
        reader = ColumnReader(rows.columns, rows.data.columns, rows.feature_cols)
        scored = predict_frame(rows.data, reader, scorer, outputs_of(program), output_col)
        return scored if rows.data is x else scored.drop(*rows.feature_cols)
    row_reader = RowReader(rows.columns, rows.feature_cols)
    return predict_rows(rows.data, row_reader, scorer, functools.partial(restored, program.traced.outputs))


def _scorer(strategy: Any, model: Any, rows: Rows, program: Any, batch_size: Any, kind: str) -> CutScorer:
    source = program.source
    if source.flags.exact_rows:
        raise ValueError(
            f"{type(model).__name__} '{model.name}' mixes the rows of a batch (by {program.traced.coupled_by!r}), so a cut "
            "model cannot score it in padded calls; leave strategy= out."
        )
    if rows.symbols:
        raise ValueError(f"strategy= cannot score packed sparse rows ({', '.join(rows.symbols)}); leave it out.")
    size = SCORING_ROWS if batch_size is None else checks.batch_size_of(batch_size)
    context = context_of(rows.data)
    strategy.preflight(context)
    params, state = program.store.read()
    scoring = strategy.scoring(source, kind, size, rows.lengths, placement_of(model), params)
    return CutScorer(context, scoring, state, source.layout.M)
