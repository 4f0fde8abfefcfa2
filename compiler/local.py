"""One process: a whole training step, gradient and update, as one donating executable over `Pieces`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .adam_row_step import row_step
from .allocator import keep_memory
from .calls import Compiled, Making, run, run_together
from .compile_cache import use_default_cache
from .errors import ProgramError, ShapeError
from .fingerprint import Recipe
from .ir import Node
from .kernels.choice import Chooser, Choosers
from .kernels.optimizers import after
from .layout import Layout
from .lower import sizes_of
from .packing import CONTROL, join, pack_step, pack_update
from .pieces import Pieces
from .row_step import Placed, RowStep
from .several import several, steps_together

if TYPE_CHECKING:
    from .program import StepSource

_ONE = np.ones((), np.float32)


class LocalStep:
    """The steps of one process; made by `StepSource.local()`.

    Each function compiles once per batch shape. `all_reduce` is the identity and `share` is 1: a call is a whole step.
    Results arrive while the step still computes, and NumPy arguments are read in place: leave a batch's arrays as they are
    until a result of its step has been read.
    """

    def __init__(self, source: StepSource):
        keep_memory()
        use_default_cache()
        self._source = source
        self.layout = source.layout
        self.pieces = Pieces(source.layout)
        self._by_rows: dict[tuple[str, ...], RowStep] = {}
        self._train = self._jit_train() if source.before("train") is not None and source.update is not None else None
        self._gradient = self._jit("train", None)
        self._test = self._jit("test", self.pieces)
        self._predict = self._jit("predict", self.pieces)

    def place(
        self, params: Any, state: Any, slots: Sequence[Any], iteration: int = 0, rows: int | None = None
    ) -> tuple[Any, Any, tuple[Any, ...]]:
        """Flat vectors on the device, in memory of their own and in the form that `train` runs on.

        Args:
            iteration: steps made. rows: of a batch, about; given, large tables may be updated by rows (`Placed`): rows that
                nobody looks up are then behind until `settle`.
        """
        tables = self._source.tables_by_rows(rows) if self._train is not None and rows else []
        if tables:
            names = tuple(t.name for t in tables)
            if names not in self._by_rows:
                self._by_rows[names] = row_step(self._source, tables)
            placed, slots = self._by_rows[names].place(params, slots, iteration)
            return placed, _own(state), slots
        return self.weights(params), _own(state), tuple(map(self.pieces.place, slots))

    def weights(self, params: Any) -> tuple[Any, ...]:
        """Flat parameters on the device in the form that `train`, `test` and `predict` run on; or as they are if so given."""
        if isinstance(params, Placed):
            return self.pieces.place(self.flat(params)[0])
        return params if isinstance(params, tuple) else self.pieces.place(params)

    def settle(self, params: Any, iteration: int) -> Any:
        """Parameters of a training, every row as after `iteration` steps. Donates what it is given."""
        return self._by_rows[params.names].settle(params, iteration) if isinstance(params, Placed) else params

    def flat(self, params: Any, slots: Sequence[Any] = ()) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Settled parameters and slots of a training as flat vectors, copies."""
        if isinstance(params, Placed):
            return self._by_rows[params.names].flat(params, slots)
        return self.pieces.flat(params), tuple(map(self.pieces.flat, slots))

    def train(
        self, params, state, slots, batch, valid, row_id, key, rows, iteration, learning_rate
    ) -> tuple[Any, Any, tuple[Any, ...], Any]:
        """One step. Returns new ``(params, state, slots, sums float32[M])``.

        Args:
            params, state, slots: what `place` gave; donated (do not use them again). Or flat vectors, which stay the
                caller's; then those returned are flat.
            batch: array per input name; valid float32[b], row_id uint32[b], key uint32[2] (None where unread).
            rows: real rows of the batch; iteration: steps before this one; learning_rate.

        Raises:
            ShapeError: an array does not fit its input.
        """
        if self._train is None:
            raise ProgramError("this StepSource has no train and update graphs")
        if isinstance(params, Placed):
            by_rows = self._by_rows[params.names]
            control = (valid, row_id, key, _scalar(rows), _ONE, _scalar(iteration, np.int32))
            arrays = _arrays(by_rows.inputs, batch, control)
            return by_rows.train(params, state, slots, arrays, _scalar(iteration, np.int32), _scalar(learning_rate))
        if not isinstance(params, tuple):
            placed = self.place(params, state, slots)
            after, state, slots, sums = self.train(*placed, batch, valid, row_id, key, rows, iteration, learning_rate)
            params, slots = self.flat(after, slots)
            return params, state, slots, sums
        names, call = self._train
        given = (valid, row_id, key, _scalar(rows), _ONE, _scalar(iteration, np.int32))
        arrays = _arrays(names, batch, given)
        return call(params, state, slots, arrays, _scalar(iteration, np.int32), _scalar(learning_rate))

    def together(self, params: Any, rows: int, batch_bytes: int) -> int:
        """How many steps of so many rows `train_several` makes in one call; 1 = use `train`.

        Args:
            params: what `place` gave.
        """
        if self._train is None or isinstance(params, Placed):
            return 1
        return steps_together(self._source, rows, batch_bytes)

    def train_several(
        self, params, state, slots, batches, valid, row_id, keys, rows, count, iteration, learning_rate
    ) -> tuple[Any, Any, tuple[Any, ...], Any]:
        """`count` steps in one call; otherwise as `train`. Numbers are those of single steps, to rounding.

        Args:
            params, state, slots: what `place` gave; donated.
            batches, valid, row_id, keys, rows: as in `train`, with the steps as first axis (at least `count`).
            iteration: steps before the first.

        Returns:
            ``(params, state, slots, sums float32[steps, M])``; rows behind the first `count` are zeros.
        """
        names, call = self._several
        stacked = _arrays(names, batches, (valid, row_id, keys, rows, _ONE, _scalar(iteration, np.int32)))
        end = (np.int32(count), _scalar(iteration, np.int32), _scalar(learning_rate))
        return call(params, state, slots, stacked, *end)

    def gradient(self, params, state, batch, valid, row_id, key, rows, iteration) -> Any:
        """float32[V] of one step: gradients, states, sums; nothing is donated."""
        if self._gradient is None:
            raise ProgramError("this StepSource has no train graph")
        names, call = self._gradient
        given = (valid, row_id, key, _scalar(rows), _ONE, _scalar(iteration, np.int32))
        return call(params, state, _arrays(names, batch, given))

    def test(self, params, state, batch, valid, rows) -> Any:
        """float32[M]: the sums of one batch."""
        if self._test is None:
            raise ProgramError("this StepSource has no test graph")
        names, call = self._test
        arrays = _arrays(names, batch, (valid, None, None, _scalar(rows), _ONE, None))
        return call(self.weights(params), state, arrays)

    def predict(self, params, state, batch) -> tuple:
        """The model's outputs for one batch."""
        if self._predict is None:
            raise ProgramError("this StepSource has no predict graph")
        names, call = self._predict
        return call(self.weights(params), state, _arrays(names, batch, (None,) * 6))

    def _jit(self, kind: str, pieces: Pieces | None) -> tuple[tuple[str, ...], Callable] | None:
        """The graph as ``f(params, state, arrays)``, all stages in one executable; None if there is no such graph."""
        source, layout = self._source, self.layout
        rest = (kind, layout, pieces is not None)
        if source.before(kind) is None:
            return None

        def make() -> Making:
            graph = source.optimised(kind)
            choosers = Choosers(graph)
            return Making(_whole(choosers, kind, layout, pieces), choosers, Recipe((graph,), rest))

        return self._names(kind), Compiled(make, 2, self._before((kind,), rest))

    def _jit_train(self) -> tuple[tuple[str, ...], Callable]:
        def make() -> Making:
            return Making(*self._traced(), self._recipe("step"))

        before = self._before(("train", "update"), self._rest("step"))
        return self._names("train"), Compiled(make, 3, before, donate_argnums=(0, 1, 2))

    def _names(self, kind: str) -> tuple[str, ...]:
        """Of the arrays of a step; passes keep a graph's inputs."""
        graph = self._source.before(kind)
        assert graph is not None
        return tuple(n.attrs["name"] for n in graph.inputs)

    def _rest(self, kind: str) -> tuple:
        return (kind, self.layout, self._source.slots, self._source.flags)

    def _recipe(self, kind: str) -> Recipe:
        return Recipe(tuple(map(self._source.optimised, ("train", "update"))), self._rest(kind))

    def _before(self, kinds: Sequence[str], rest: tuple) -> Recipe | None:
        """What a function of these graphs is made of before their passes; None if that is not known."""
        objective = self._source.objective
        described = [
            objective.described if kind == "train" and objective is not None else self._source.before(kind)
            for kind in kinds
        ]
        graphs = tuple(graph for graph in described if graph is not None)
        return Recipe(graphs, (*kinds, *rest)) if len(graphs) == len(kinds) else None

    @functools.cached_property
    def _several(self) -> tuple[tuple[str, ...], Callable]:
        names, before = self._names("train"), self._before(("train", "update"), self._rest("steps"))
        return names, several(self._traced, names, self.layout.M, lambda: self._recipe("steps"), before)

    def _traced(self) -> tuple[Callable, Choosers]:
        """``step(params, state, slots, arrays, iteration, rate)`` and its choosers."""
        choosers = Choosers(self._source.optimised("train"))
        gradient = _whole(choosers, "train", self.layout, self.pieces)

        def step(params, state, slots, arrays, iteration, learning_rate):
            gradients, new_state, sums = gradient(params, state, arrays)
            new_params, new_slots = self._updated(params, slots, gradients, iteration, learning_rate)
            return new_params, new_state, new_slots, sums

        return step, choosers

    def _updated(self, params, slots, gradients, iteration, learning_rate) -> tuple[tuple, tuple]:
        """The optimiser's step on each piece, as if each were a replica's slice; on the whole vectors where it must be."""
        whole = self._source.flags.update_mode == "replicated"
        if whole:
            params, gradients, *slots = ([self.pieces.vector(p, join)] for p in (params, gradients, *slots))
        segments = [self.layout.segments()] if whole else [self.pieces.segments(i) for i in range(len(params))]
        update, chooser = self._source.optimised("update"), Chooser()
        common = {"iteration": iteration, "learning_rate": after(learning_rate, gradients)}
        jobs = []
        for i, (param, gradient) in enumerate(zip(params, gradients)):
            given = {"param": _flat(param), "gradient": _flat(gradient), "segment": segments[i], **common}
            given |= {f"slot/{s.name}": _flat(v[i]) for s, v in zip(self._source.slots, slots)}
            jobs.append((pack_update(update, self._source.slots, {"n": param.size}, chooser), given))
        outs = run_together(jobs)
        if whole:
            new_params, *new_slots = (self.pieces.cut(vector, join) for vector in outs[0])
            return new_params, tuple(new_slots)
        shaped = [[v if v.shape == p.shape else v.reshape(p.shape) for v in out] for p, out in zip(params, outs)]
        turned = [tuple(out[k] for out in shaped) for k in range(1 + len(slots))]
        return turned[0], tuple(turned[1:])


def _whole(choosers: Choosers, kind: str, layout: Layout, pieces: Pieces | None) -> Callable:
    """The graph as ``f(params, state, arrays)``; params are pieces, or a flat vector if `pieces` is None."""
    graph = choosers.graph
    inputs: list[Node] = list(graph.inputs)
    names = [n.attrs["name"] for n in inputs]

    def whole(params, state, arrays):
        for name, value in zip(names, arrays):
            if value is None:
                raise ShapeError(f"the {kind} graph reads {name!r}, which was not given")
        arrays = [jnp.asarray(a) for a in arrays]
        sizes = sizes_of(inputs, arrays)
        packed = pack_step(graph, kind, layout, sizes, choosers(sizes), pieces)
        given = dict(zip(names, arrays)) | {"state": state}
        given |= {"params": params} if pieces is None else dict(zip(pieces.names, params))
        return run(packed, {"share": jnp.float32(1), **given})

    return whole


def _flat(array: Any) -> Any:
    return array if array.ndim == 1 else array.ravel()


def _arrays(names: Sequence[str], batch: Mapping[str, Any], given: Sequence[Any]) -> tuple:
    control = dict(zip(CONTROL, given))
    try:
        return tuple(control[name] if name in control else batch[name] for name in names)
    except KeyError as error:
        raise ShapeError(f"the batch has no {error.args[0]!r}; it holds {', '.join(map(str, batch))}") from None


def _own(value: Any) -> Any:
    """A JAX array of its own memory, so that it may be donated."""
    return value if isinstance(value, jax.Array) else jax.device_put(np.array(value))


def _scalar(value: Any, dtype=np.float32) -> Any:
    return value if type(value) is dtype or isinstance(value, jax.Array) else dtype(value)
