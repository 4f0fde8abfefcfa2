"""`LocalProgram`: what one worker of a parallel model gets, as bytes; `LocalCall`: its instructions for a call."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import wireformat
from ..errors import ProgramError
from ..program import Call, StepProgram
from . import instructions
from .instructions import Compute, Instruction

FORMAT = "parallel-2"


@dataclasses.dataclass(frozen=True)
class LocalCall:
    """One coordinate's part of a call for so many rows.

    Attributes:
        kind: "train", "test" or "predict".
        phases: "whole", or "forward" and "backward"; see `run`.
            "before", if there is such, comes first, for all calls of a step.
        totals: what "before" gives this call's share of, name and shape; the other phases read the sums over all calls.
        results: names in the environment after the last phase: "vector", or for "predict" what this coordinate gives of
            the outputs, in their order (all of them, or none).
    """

    kind: str
    rows: int
    phases: Mapping[str, tuple[Instruction, ...]]
    results: tuple[str, ...]
    totals: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def compile(self) -> None:
        """Compiles all that is not compiled yet."""
        for phase in self.phases.values():
            for instruction in phase:
                if isinstance(instruction, Compute):
                    instruction.executable()

    def result(self, environment: Mapping[str, Any]) -> Any:
        """float32[V_local] (train), float32[M] (test), a tuple of arrays (predict; empty where others give them)."""
        if self.kind == "predict":
            return tuple(environment[name] for name in self.results)
        return environment["vector"]


class LocalProgram:
    """The program of one coordinate. Like a `StepProgram`, but for calls, which are instructions.

    Attributes:
        coordinate: which; coordinates: of how many.
        layout: params are this coordinate's parts; states and sums those of the whole model.
        runs: for local parameters one after another, the index of their variable in the whole model's layout, how many, and
            whether they count in sums over all parameters (another coordinate that holds them too may do it).
        update: as in `StepProgram`. inputs, outputs, slots, flags, lengths, kernels, tables: the same.
        train_rows, test_rows, predict_rows: numbers of rows that it was made for.
        fingerprint: SHA-256 of the bytes, in hex.
    """

    def __init__(self, data: bytes):
        header, blobs = wireformat.read(data)
        if header.get("format") != FORMAT:
            raise ProgramError(f"this is no local program of a parallel model: format {header.get('format')!r}")
        self._data = bytes(data)
        self.fingerprint = hashlib.sha256(self._data).hexdigest()
        try:
            self.step = StepProgram.from_bytes(blobs[0])
            self.coordinate, self.coordinates = int(header["coordinate"]), int(header["coordinates"])
            self.runs = [(int(variable), int(count), bool(counts)) for variable, count, counts in header["runs"]]
            self._calls: dict[tuple[str, int], LocalCall] = {}
            for described in header["calls"]:
                kind, rows = str(described["kind"]), int(described["rows"])
                phases = {
                    name: tuple(instructions.from_json(value, blobs) for value in phase)
                    for name, phase in described["phases"]
                }
                totals = tuple((str(name), tuple(map(int, shape))) for name, shape in described["totals"])
                self._calls[kind, rows] = LocalCall(kind, rows, phases, tuple(described["results"]), totals)
            self.kernels: tuple[str, ...] = tuple(header["kernels"])
            self.lengths: dict[str, int] = dict(header["lengths"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ProgramError(f"the local program's header is damaged: {error!r}") from None
        step = self.step
        self.layout, self.inputs, self.outputs = step.layout, step.inputs, step.outputs
        self.slots, self.flags, self.tables = step.slots, step.flags, step.tables

    def __repr__(self) -> str:
        return f"<LocalProgram {self.coordinate} of {self.coordinates}, {self.layout.P} parameters>"

    def to_bytes(self) -> bytes:
        return self._data

    @classmethod
    def from_bytes(cls, data: bytes) -> LocalProgram:
        """The program in `data`; nothing is compiled or executed.

        Raises:
            ProgramError: no local program of this version, cut short, or damaged.
        """
        return cls(data)

    def rows_of(self, kind: str) -> tuple[int, ...]:
        return tuple(rows for k, rows in self._calls if k == kind)

    train_rows = property(lambda self: self.rows_of("train"))
    test_rows = property(lambda self: self.rows_of("test"))
    predict_rows = property(lambda self: self.rows_of("predict"))

    def train(self, rows: int) -> LocalCall:
        """The gradient call for so many rows.

        Raises:
            ProgramError: the program was not made for them.
        """
        return self._call("train", rows)

    def test(self, rows: int) -> LocalCall:
        return self._call("test", rows)

    def predict(self, rows: int) -> LocalCall:
        return self._call("predict", rows)

    def update(self, n: int) -> Call:
        """The optimiser's call for a slice of `n` local parameters."""
        return self.step.update(n)

    def segments(self) -> np.ndarray:
        """int32[P_local]: for each local parameter the index of its variable in the whole model's layout."""
        return self._by_run(np.array([variable for variable, _, _ in self.runs], np.int32))

    def counted(self) -> np.ndarray:
        """float32[P_local]: 1 for each local parameter that counts in sums over all parameters, else 0."""
        return self._by_run(np.array([counts for _, _, counts in self.runs], np.float32))

    def _by_run(self, values: np.ndarray) -> np.ndarray:
        return np.repeat(values, [count for _, count, _ in self.runs])

    def reads(self, kind: str) -> tuple[str, ...]:
        """The arrays of a batch that this coordinate's calls of `kind` read."""
        named = {i.name for i in self.inputs}
        calls = [call for (k, _), call in self._calls.items() if k == kind]
        read = {
            name
            for call in calls
            for phase in call.phases.values()
            for instruction in phase
            if isinstance(instruction, Compute)
            for name in instruction.reads
        }
        return tuple(i.name for i in self.inputs if i.name in named & read)

    def _call(self, kind: str, rows: int) -> LocalCall:
        self.step.check_kernels(self.kernels)
        call = self._calls.get((kind, rows))
        if call is None:
            there = ", ".join(map(str, self.rows_of(kind))) or "none"
            raise ProgramError(f"this local program has no {kind} call for {rows} rows; it has {there}")
        return call


def write(
    step: StepProgram,
    coordinate: int,
    coordinates: int,
    runs: Sequence[tuple[int, int, bool]],
    calls: Sequence[LocalCall],
    kernels: Sequence[str],
    lengths: Mapping[str, int],
) -> LocalProgram:
    """The local program of these parts; `step` holds layout and update."""
    blobs = [step.to_bytes()]
    described = [
        {
            "kind": call.kind,
            "rows": call.rows,
            "phases": [
                [name, [instructions.to_json(one, blobs) for one in phase]] for name, phase in call.phases.items()
            ],
            "results": list(call.results),
            "totals": [[name, list(shape)] for name, shape in call.totals],
        }
        for call in calls
    ]
    header = {
        "format": FORMAT,
        "coordinate": coordinate,
        "coordinates": coordinates,
        "runs": [list(run) for run in runs],
        "calls": described,
        "kernels": sorted(kernels),
        "lengths": dict(lengths),
    }
    return LocalProgram.from_bytes(wireformat.write(header, blobs))
