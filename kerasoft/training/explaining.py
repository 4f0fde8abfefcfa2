"""`Model.explain`: what the compiler makes of a model for a batch."""

from __future__ import annotations

from typing import Any


def explain_model(model: Any, x: Any, y: Any, batch_size: int, kind: str | None, measure: bool) -> Any:
    """See `Model.explain`."""
    from ..compiler.explain import explain
    from .local_fit import _Source

    predicting = y is None
    source = _Source(model, x, y, None, batch_size, None, None, "predict" if predicting else "fit")
    program = model._program(source.signature, "predict" if predicting else "train")
    if kind is None:
        kind = "predict" if predicting else "train"
    return explain(program.source, kind, rows=int(batch_size), measure=measure)
