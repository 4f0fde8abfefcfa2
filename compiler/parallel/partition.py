"""`partition`: a model's graphs and a mesh become a `Plan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..program import StepSource
from .mesh import Mesh, ParallelError
from .pipeline import Pipeline
from .plan import Plan
from .slices import Slices
from .stages import measured
from .tensors import Tensors
from .update import check_update


def partition(
    source: StepSource,
    mesh: Mesh,
    placement: Mapping[str, Any] | None = None,
    rows: int = 32,
    lengths: Mapping[str, int] | None = None,
    measure: bool = False,
) -> Plan:
    """Cuts a model for a mesh.

    Args:
        placement: what users pinned, by layer name or path: a stage (pipeline), or "split", "replicate" or an axis of
            the layer's kernel (model). None leaves a layer to the compiler.
        rows: of the calls that the cut is balanced for (one microbatch of one replica).
        lengths: a number for each other unknown size of the inputs.
        measure: balance a pipeline by times measured now, in a step of the whole model in this process, not by counted
            operations and bytes.

    Raises:
        ParallelError: the model cannot be cut like this.
    """
    pinned = {name: value for name, value in (placement or {}).items() if value is not None}
    sizes = {**(lengths or {}), "b": rows}
    check_update(source, mesh)
    if mesh.pipeline > 1:
        cost = measured(source, rows, lengths) if measure else None
        return Plan(source, mesh, Pipeline(source, mesh.pipeline, pinned, sizes, cost), rows)
    if mesh.model > 1:
        return Plan(source, mesh, Tensors(source, mesh.model, pinned, sizes), rows)
    if mesh.zero:
        return Plan(source, mesh, Slices(source, mesh.slices, sizes), rows)
    raise ParallelError(f"nothing to cut for {mesh}")
