"""What travels and what runs: `StepSource` (graphs), `LocalStep` (one process), `StepProgram` (bytes for executors).

A `StepProgram` needs none of the user's code where it runs: it holds StableHLO, the layout and the specifications.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from . import executables, wireformat
from .allocator import keep_memory
from .compile_cache import cache_hits, compilations, use_compile_cache
from .errors import CompilerError, ProgramError, ShapeError
from .ir import Graph, bind, symbol
from .kernels import bridge
from .kernels.choice import Chooser
from .kernels.optimizers import apart
from .layout import Entry, Flags, InputSpec, Layout, SlotSpec, StepArgs, UpdateArgs
from .local import LocalStep
from .objective import Objective, TrainField
from .options import compiler_options
from .packing import PackedStage, bucket_ranges, bucket_stages, pack_buckets, pack_step, pack_update, unknown_sizes
from .passes import optimise
from .row_program import RowCalls, RowFootprint, by_rows, footprint
from .rows import IdleRule, Table, applicable, find_tables
from .threads import pin_threads, threads

__all__ = [
    "Call", "Entry", "Flags", "InputSpec", "Layout", "LocalStep", "RowFootprint", "SlotSpec", "StepArgs", "StepProgram", "StepSource",
    "UpdateArgs", "ProgramError", "by_rows", "cache_hits", "compilations", "footprint", "native_libraries", "pin_threads", "threads", "use_compile_cache",
]  # fmt: skip


def native_libraries() -> dict[str, str]:
    """{library: what is loaded here, e.g. "native-v4" or "onednn-v4-3.2.0", or a sentence saying why it is not}."""
    there = {said.partition("-")[0]: said for said in bridge.signature()}
    return {name: there.get(name) or bridge.missing(name) or "" for name in bridge.LIBRARIES}


@dataclasses.dataclass(frozen=True)
class StepSource:
    """A model's graphs and what its arrays are; see docs/design/0001-architecture.md for the graphs' inputs and outputs.

    Attributes:
        layout: the flat vector. inputs: the arrays of a batch. outputs: names of the model's outputs.
        train, test, predict, update: graphs, or None where not needed. `train` may be given as an `Objective`: then its gradients
            are worked out when it is first read.
        slots: the optimiser's vectors. flags: how the runtime may cut a step.
        idle: for weights that the forward part of the train graph only looks up, by name: what the optimiser's steps without
            gradient do.
        whole: for other weights that are looked up: why every step updates all of their rows.
        part_update: of an update over whole vectors: ``graph(names)`` is that of a worker that holds some of the weights, each
            whole, or a text says why there is none; None: not known.
    """

    layout: Layout
    inputs: tuple[InputSpec, ...] = ()
    outputs: tuple[str, ...] = ()
    train: TrainField = TrainField()
    test: Graph | None = None
    predict: Graph | None = None
    update: Graph | None = None
    slots: tuple[SlotSpec, ...] = ()
    flags: Flags = Flags()
    idle: Mapping[str, IdleRule] = dataclasses.field(default_factory=dict, hash=False)
    whole: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    part_update: Callable[[Sequence[str]], Graph] | str | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    @functools.cached_property
    def tables(self) -> dict[str, Table]:
        """The tables of `idle` whose gradients are rows."""
        found = find_tables(self.train)[0] if self.idle and self.train is not None else {}
        return {name: table for name, table in found.items() if name in self.idle}

    def tables_by_rows(self, rows: int) -> list[Table]:
        """The tables that a step of about so many rows updates by rows, in one process."""
        forward = self.before("train") if self.idle else None
        if forward is None or not applicable(find_tables(forward)[0], self.idle, rows):
            return []  # known without gradients
        return applicable(self.tables, self.idle, rows)

    @property
    def objective(self) -> Objective | None:
        """What `train` is made of, where that is known."""
        given = self.__dict__["train"]
        return given if isinstance(given, Objective) else None

    def before(self, kind: str) -> Graph | None:
        """The graph `kind` before the passes, for what needs no gradients: those of an `Objective` are left out.

        Its inputs are all that the graph has.
        """
        if kind == "train" and self.objective is not None:
            return self.objective.forward
        return getattr(self, kind)

    @functools.cached_property
    def _optimised(self) -> dict[str, Graph]:
        return {}

    def optimised(self, kind: str) -> Graph:
        """The graph `kind` ("train", "test", "predict", "update") after the passes.

        Raises:
            ProgramError: there is no such graph.
        """
        if kind not in self._optimised:
            graph: Graph | None = getattr(self, kind)
            if graph is None:
                raise ProgramError(f"this StepSource has no {kind} graph")
            self._optimised[kind] = optimise(graph, kind)
        return self._optimised[kind]

    def local(self) -> LocalStep:
        """The steps of one process."""
        return LocalStep(self)

    def slot_vectors(self, size: int | None = None) -> tuple[np.ndarray, ...]:
        """The slots at the start of training, for `size` elements (all P by default)."""
        return tuple(np.full(self.layout.P if size is None else size, s.fill, np.float32) for s in self.slots)

    def buckets(self, count: int) -> tuple[tuple[int, int], ...]:
        """At most `count` ranges of the flat vector in which the gradient can be given, in the order in which they are ready.

        () if it cannot be cut: sums over replicas stand inside, or there is one variable only.
        """
        if count < 2 or self.train is None:
            return ()
        ranges = bucket_ranges(self.layout, count)
        try:
            bucket_stages(self.optimised("train"), self.layout, ranges)
        except CompilerError:
            return ()
        return ranges if len(ranges) > 1 else ()

    def export(
        self,
        train_rows: Sequence[int] = (),
        test_rows: Sequence[int] = (),
        predict_rows: Sequence[int] = (),
        lengths: Mapping[str, int] | None = None,
        tables: Sequence[str] = (),
        buckets: int = 1,
    ) -> StepProgram:
        """The program for these row counts.

        Args:
            train_rows, test_rows, predict_rows: numbers of rows that a call will be made for.
            lengths: a number for each other unknown size of the inputs, e.g. ``{"n1": 40}``.
            tables: names of tables that are updated by rows: in place of "train" there are the calls of `row_program`.
            buckets: at most so many parts of the gradient are given one after another, as they are ready: in place of "train"
                there is "buckets". A graph that cannot be cut keeps "train". Not together with `tables`.

        Raises:
            ProgramError: an unknown size without a number; a graph that does not fit the layout.
        """
        stages: list[dict[str, Any]] = []
        blobs: list[bytes] = []
        needs: set[str] = set()
        of_tables = RowCalls(self, tables) if tables else None
        if of_tables is not None:
            for rows in dict.fromkeys(int(r) for r in train_rows):
                for kind, packed, options, wanted in of_tables.calls(rows, lengths or {}):
                    _export(kind, rows, packed, options, stages, blobs)
                    needs |= wanted
            for kind, packed, options in of_tables.shared():
                _export(kind, 0, packed, options, stages, blobs)
            train_rows = ()
        ranges = self.buckets(buckets) if train_rows else ()
        for kind, counts in (("train", train_rows), ("test", test_rows), ("predict", predict_rows)):
            for rows in dict.fromkeys(int(r) for r in counts):
                graph = self.optimised(kind)
                sizes = {**(lengths or {}), "b": rows}
                missing = sorted(unknown_sizes(graph) - set(sizes))
                if missing:
                    raise ProgramError(
                        f"{kind} graph: the inputs have variable sizes {', '.join(missing)}; "
                        f"give export(lengths={{{', '.join(f'{m!r}: ...' for m in missing)}}})"
                    )
                if rows < 1:
                    raise ProgramError(f"{kind}: a call needs at least one row, got {rows}")
                chooser = Chooser(graph, sizes)
                if ranges and kind == "train":
                    packed = pack_buckets(graph, self.layout, sizes, ranges, chooser)
                    _export("buckets", rows, packed, chooser.options, stages, blobs)
                else:
                    packed = pack_step(graph, kind, self.layout, sizes, chooser)
                    _export(kind, rows, packed, chooser.options, stages, blobs)
                needs |= chooser.needs
        if self.update is not None:
            graph = self.optimised("update")
            symbolic = unknown_sizes(graph)
            chooser = Chooser()
            packed = pack_update(graph, self.slots, {name: symbol(name) for name in symbolic}, chooser)
            with apart():
                _export("update", 0 if symbolic else self.layout.P, packed, compiler_options(graph), stages, blobs)
            needs |= chooser.needs
        header = {
            "layout": self.layout.to_json(),
            "inputs": [[i.name, [None if d is None else _size(d) for d in i.shape], i.dtype] for i in self.inputs],
            "outputs": list(self.outputs),
            "slots": [[s.name, s.fill] for s in self.slots],
            "flags": dataclasses.asdict(self.flags),
            "lengths": dict(lengths or {}),
            "stages": stages,
            "kernels": sorted(needs),
            "tables": of_tables.described if of_tables is not None else [],
            "buckets": [list(r) for r in ranges],
        }
        return StepProgram.from_bytes(wireformat.write(header, blobs))


def _size(dim: Any) -> Any:
    return int(dim) if isinstance(dim, (int, np.integer)) else str(dim)


def _export(kind: str, rows: int, packed: Sequence[PackedStage], options, stages: list, blobs: list[bytes]) -> None:
    """Appends the StableHLO of each stage to `blobs` and its description to `stages`."""
    for k, stage in enumerate(packed):
        count, carried = len(stage.types), len(stage.carried)

        def flat(*arrays, stage=stage, count=count, carried=carried):
            reduced = arrays[count + carried] if stage.reduced is not None else None
            carry, out = stage.function(arrays[:count], arrays[count : count + carried], reduced)
            return (*carry, *out) if isinstance(out, tuple) else (*carry, out)

        avals = [*stage.types, *stage.carried]
        if stage.reduced is not None:
            avals.append(jax.ShapeDtypeStruct((stage.reduced,), "float32"))
        blob = executables.export(f"{kind}_{k}", flat, avals)
        following = packed[k + 1] if k + 1 < len(packed) else None
        stages.append(
            {
                "kind": kind,
                "rows": rows,
                "stage": k,
                "names": list(stage.names),
                "types": [[[_size(d) for d in t.shape], t.dtype.name] for t in avals],
                "carried": len(following.carried) if following else 0,
                "reduced": stage.reduced is not None,
                "single": kind in ("train", "test", "buckets") or following is not None,
                "options": options,
            }
        )
        blobs.append(blob)


class StepProgram:
    """A model's compiled steps as bytes: what an executor gets.

    Attributes:
        layout, inputs, outputs, slots, flags: as in `StepSource`.
        train_rows, test_rows, predict_rows: the row counts that it was exported for.
        lengths: the numbers given for variable sizes.
        kernels: the native libraries that it calls.
        tables: what `row_program.RowCalls` says of tables that are updated by rows.
        buckets: ranges of the flat vector that the stages of `part("buckets", rows)` give, in their order; () if there is
            "train" instead.
        fingerprint: SHA-256 of the bytes, in hex.
    """

    def __init__(self, data: bytes):
        header, blobs = wireformat.read(data)
        self._data = bytes(data)
        self.fingerprint = hashlib.sha256(self._data).hexdigest()
        try:
            self.layout = Layout.from_json(header["layout"])
            self.inputs = tuple(InputSpec(n, tuple(s), d) for n, s, d in header["inputs"])
            self.outputs = tuple(header["outputs"])
            self.slots = tuple(SlotSpec(n, f) for n, f in header["slots"])
            self.flags = Flags(**header["flags"])
            self.lengths: dict[str, int] = dict(header["lengths"])
            self.kernels: tuple[str, ...] = tuple(header["kernels"])
            self.tables: tuple[dict[str, Any], ...] = tuple(header.get("tables", ()))
            self.buckets = tuple((int(a), int(b)) for a, b in header.get("buckets", ()))
            self._stages: dict[tuple[str, int], list[_StageBytes]] = {}
            for described, blob in zip(header["stages"], blobs, strict=True):
                stages = self._stages.setdefault((described["kind"], described["rows"]), [])
                stages.append(_StageBytes.from_json(described, blob))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProgramError(f"the StepProgram's header is damaged: {error!r}") from None
        self._calls: dict[tuple, Call] = {}

    def __repr__(self) -> str:
        return f"<StepProgram {self.fingerprint[:12]}, {len(self._data)} bytes, {self.layout.P} parameters>"

    def to_bytes(self) -> bytes:
        return self._data

    @classmethod
    def from_bytes(cls, data: bytes) -> StepProgram:
        """The program in `data`. Reads only: nothing is compiled or executed.

        Raises:
            ProgramError: not a program of this version, cut short, or damaged.
        """
        return cls(data)

    def rows_of(self, kind: str) -> tuple[int, ...]:
        return tuple(rows for k, rows in self._stages if k == kind)

    train_rows = property(lambda self: self.rows_of("train"))
    test_rows = property(lambda self: self.rows_of("test"))
    predict_rows = property(lambda self: self.rows_of("predict"))

    def train(self, rows: int) -> Call:
        """The gradient call for `rows` rows, compiled once.

        Raises:
            ProgramError: the program was not exported for so many rows.
        """
        return self._call("train", rows, rows)

    def test(self, rows: int) -> Call:
        """The evaluation call for `rows` rows, compiled once."""
        return self._call("test", rows, rows)

    def predict(self, rows: int) -> Call:
        """The prediction call for `rows` rows, compiled once."""
        return self._call("predict", rows, rows)

    def update(self, n: int) -> Call:
        """The optimiser's call for a slice of `n` parameters, compiled once."""
        if ("update", 0) in self._stages:
            return self._call("update", 0, n)
        return self._call("update", n, n)

    def part(self, kind: str, rows: int = 0, n: int = 0) -> Call:
        """A call of `row_program`, compiled once: for `rows` rows of a batch, or `n` rows of a table."""
        return self._call(kind, rows, rows or n)

    def _call(self, kind: str, rows: int, n: int) -> Call:
        key = (kind, n)
        if key not in self._calls:
            self.check_kernels(self.kernels)
            stages = self._stages.get((kind, rows))
            if stages is None:
                there = ", ".join(map(str, self.rows_of(kind))) or "none"
                raise ProgramError(f"this StepProgram has no {kind} call for {rows} rows; it has {there}")
            self._calls[key] = Call(kind, stages, n, tuple(s.name for s in self.slots))
        return self._calls[key]

    @staticmethod
    def check_kernels(libraries: Sequence[str]) -> None:
        """
        Raises:
            ProgramError: a native library that a program calls is not here.
        """
        for library in libraries:
            reason = bridge.missing(library)
            if reason is not None:
                raise ProgramError(
                    f"host {platform.node()} cannot run this program's {library} kernels, which the driver chose: {reason} "
                    "Install the same kerasoft on all hosts, or set KERASOFT_NATIVE=0 on the driver."
                )


@dataclasses.dataclass(frozen=True)
class _StageBytes:
    """One exported stage; `types` are of the named arguments, then of the carry, then of the vector of sums."""

    names: tuple[str, ...]
    types: tuple[tuple[tuple, str], ...]
    carried: int
    reduced: bool
    single: bool
    exported: executables.Exported

    @classmethod
    def from_json(cls, value: Mapping[str, Any], blob: bytes) -> _StageBytes:
        return cls(
            tuple(value["names"]),
            tuple((tuple(s), str(np.dtype(d).name)) for s, d in value["types"]),
            int(value["carried"]),
            bool(value["reduced"]),
            bool(value["single"]),
            executables.Exported.of(blob, value["options"]),
        )


class Call:
    """One call of a program, compiled: `stages` executables with sums over replicas between them.

    Thread-safe: a call keeps nothing between runs. Results arrive while the call still computes, and NumPy arguments are
    read in place: leave them as they are until a result has been read (``np.asarray(out)``, ``out.block_until_ready()``).
    """

    def __init__(self, kind: str, stages: Sequence[_StageBytes], n: int, slots: tuple[str, ...]):
        keep_memory()
        self.kind, self.rows, self.stages = kind, n, len(stages)
        self._parts = []
        for stage in stages:
            types = [jax.ShapeDtypeStruct(tuple(_bound(d, n) for d in s), dtype) for s, dtype in stage.types]
            self._parts.append((stage, types, stage.exported.executable(types)))
        self._getters = [[_getter(name, kind, slots) for name in stage.names] for stage in stages]

    def run(self, k: int, args: StepArgs | UpdateArgs, carry: tuple = (), reduced: Any = None) -> tuple[tuple, Any]:
        """Stage `k`.

        Args:
            args: the call's arguments, the same for all stages.
            carry: what stage k - 1 gave; () for k = 0.
            reduced: float32 vector, the sum over replicas of what stage k - 1 gave; None for k = 0 and between buckets.

        Returns:
            ``(carry, out)``: out is the vector to be summed over replicas (k < stages - 1), or the result: float32[V]
            (train), float32[M] (test), a tuple of arrays (predict), ``(param, *slots)`` (update). Of "buckets" every stage
            gives a part of the result.

        Raises:
            ShapeError: an array of another shape or dtype than the program was exported for.
        """
        stage, types, executable = self._parts[k]
        arrays = [get(args) for get in self._getters[k]]
        arrays += carry
        if stage.reduced:
            arrays.append(reduced)
        try:
            out = executable(*arrays)
        except (TypeError, ValueError) as error:
            self._explain(stage, types, arrays)
            raise ShapeError(f"{self.kind}({self.rows}), stage {k}: {error}") from error
        return tuple(out[: stage.carried]), out[stage.carried] if stage.single else tuple(out[stage.carried :])

    def whole(self, args: StepArgs | UpdateArgs) -> Any:
        """All stages one after another with one replica: sums are their own input."""
        carry, out = self.run(0, args)
        for k in range(1, self.stages):
            carry, out = self.run(k, args, carry, out)
        return out

    def _explain(self, stage: _StageBytes, types: Sequence[jax.ShapeDtypeStruct], arrays: Sequence[Any]) -> None:
        names = [*stage.names, *("carry",) * (len(types) - len(stage.names))]
        if len(arrays) != len(types):
            raise ShapeError(f"{self.kind}({self.rows}): needs {len(types)} arrays, got {len(arrays)}: wrong carry?")
        for name, want, got in zip(names, types, arrays):
            there = None if got is None else (tuple(np.shape(got)), getattr(got, "dtype", type(got).__name__))
            if there != (want.shape, want.dtype):
                found = "nothing" if there is None else f"{there[1]}{list(there[0])}"
                raise ShapeError(f"{self.kind}({self.rows}): {name} needs {want.dtype}{list(want.shape)}, got {found}")

    def memory(self) -> dict[str, int]:
        """Bytes of the largest stage: arguments, outputs, temporaries, code."""
        fields = {"arguments": "argument", "outputs": "output", "temporaries": "temp", "code": "generated_code"}
        stats = [part[2].memory_analysis() for part in self._parts]
        return {name: max(getattr(s, f"{field}_size_in_bytes") for s in stats) for name, field in fields.items()}


_NUMBERS = {"rows": np.float32, "share": np.float32, "learning_rate": np.float32, "iteration": np.int32}


def _bound(dim: int | str, n: int) -> int:
    return dim if isinstance(dim, int) else bind(symbol(dim), {"n": n})


def _getter(name: str, kind: str, slots: tuple[str, ...]):
    """How an argument is read off `StepArgs` or `UpdateArgs`."""
    if name in _NUMBERS:
        dtype = _NUMBERS[name]

        def number(args):
            value = getattr(args, name)
            if value is None:
                raise ShapeError(f"the {kind} call needs {name!r}, got nothing")
            return value if isinstance(value, (np.ndarray, jax.Array)) else dtype(value)

        return number
    if kind == "update":
        if name.startswith("slot/"):
            position = slots.index(name.removeprefix("slot/"))
            return lambda args: args.slots[position]
        return lambda args: getattr(args, name)
    if name in ("params", "state", "valid", "row_id", "key"):
        return lambda args: getattr(args, name)

    def array(args):
        try:
            return args.batch[name]
        except KeyError:
            raise ShapeError(f"the batch has no {name!r}; it holds {', '.join(map(str, args.batch))}") from None

    return array
