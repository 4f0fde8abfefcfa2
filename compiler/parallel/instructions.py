"""The instructions of a local program, over named values of one microbatch.

Values are arrays by name in a dictionary, the environment. It begins with the arguments of a call: "params" (the local
flat vector), "state", the arrays of the batch, "valid", "row_id", "key", "rows", "share" and "iteration".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..errors import ProgramError
from ..executables import Exported

Types = tuple[tuple[tuple[int, ...], str], ...]  # shape and dtype of each value


@dataclasses.dataclass(frozen=True)
class Compute:
    """Runs compiled code: `reads` of these `types` become `writes`."""

    reads: tuple[str, ...]
    types: Types
    writes: tuple[str, ...]
    exported: Exported = dataclasses.field(repr=False)

    def executable(self) -> Any:
        """The code, compiled once a process."""
        return self.exported.executable([jax.ShapeDtypeStruct(s, d) for s, d in self.types])


@dataclasses.dataclass(frozen=True)
class Number:
    """`name` becomes an int32 number."""

    name: str
    value: int


@dataclasses.dataclass(frozen=True)
class Cut:
    """Each of `values` becomes the elements [start, stop) of the vector `of`: weights, as views."""

    of: str
    values: tuple[str, ...]
    bounds: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Sum:
    """Each of `values` becomes its sum over the ranks along `axis` ("model" or "data"), all of them in one exchange."""

    axis: str
    values: tuple[str, ...]
    types: Types


@dataclasses.dataclass(frozen=True)
class Gather:
    """Each of `values` becomes everybody's, in the order of ranks along `axis`, on a new first axis; all of one dtype, in one
    exchange. `types` are those of the results."""

    axis: str
    values: tuple[str, ...]
    types: Types


@dataclasses.dataclass(frozen=True)
class Send:
    """Gives `values` to the coordinate `to`; does not wait for it."""

    to: int
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Receive:
    """Takes what the coordinate `source` sends, as `values`."""

    source: int
    values: tuple[str, ...]
    types: Types


@dataclasses.dataclass(frozen=True)
class GatherParams:
    """Zero stage 3: "params/<group>" becomes the group's `size` parameters, of which everybody holds [start, stop) of its own
    "params"."""

    group: int
    start: int
    stop: int
    size: int


@dataclasses.dataclass(frozen=True)
class ScatterGrads:
    """Zero stage 3: "grads/<group>", as long as all slices of `slice_size`, is summed over the workers; "slice/<group>" becomes
    the own slice."""

    group: int
    slice_size: int


@dataclasses.dataclass(frozen=True)
class Drop:
    """The values are read no more."""

    names: tuple[str, ...]


Instruction = Compute | Cut | Number | Sum | Gather | Send | Receive | GatherParams | ScatterGrads | Drop
_KINDS = {
    kind.__name__: kind for kind in (Compute, Cut, Number, Sum, Gather, Send, Receive, GatherParams, ScatterGrads, Drop)
}


def to_json(instruction: Instruction, blobs: list[bytes]) -> dict[str, Any]:
    """The instruction as plain values; code goes to `blobs`, the same code once."""
    fields = {f.name: getattr(instruction, f.name) for f in dataclasses.fields(instruction)}
    if isinstance(instruction, Compute):
        code: Exported = fields.pop("exported")
        if code.blob not in blobs:
            blobs.append(code.blob)
        fields |= {"blob": blobs.index(code.blob), "options": dict(code.options)}
    return {"kind": type(instruction).__name__, **fields}


def from_json(value: Mapping[str, Any], codes: Sequence[bytes]) -> Instruction:
    """
    Raises:
        ProgramError: no instruction of this version.
    """
    try:
        fields = dict(value)
        kind = _KINDS[fields.pop("kind")]
        if kind is Compute:
            fields["exported"] = Exported.of(codes[fields.pop("blob")], fields.pop("options"))
        for name in ("reads", "writes", "values", "names"):
            if name in fields:
                fields[name] = tuple(map(str, fields[name]))
        if "types" in fields:
            fields["types"] = tuple(map(_type, fields["types"]))
        if "bounds" in fields:
            fields["bounds"] = tuple((int(start), int(stop)) for start, stop in fields["bounds"])
        return kind(**fields)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ProgramError(f"an instruction of the local program is damaged: {error!r}") from None


def _type(value: Any) -> tuple[tuple[int, ...], str]:
    shape, dtype = value
    return tuple(map(int, shape)), _dtype(dtype)


def _dtype(name: str) -> str:
    return name if name == "bfloat16" else np.dtype(name).name
