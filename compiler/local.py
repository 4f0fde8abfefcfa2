"""One process: a whole training step, gradient and update, as one donating executable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import ProgramError, ShapeError
from .ir import Graph, Node
from .kernels.choice import Choosers
from .lower import sizes_of
from .packing import CONTROL, pack_step, pack_update

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
        self._source = source
        self.layout = source.layout
        self._train = self._jit_train() if source.train is not None and source.update is not None else None
        self._gradient = self._jit("train", source.train) if source.train is not None else None
        self._test = self._jit("test", source.test) if source.test is not None else None
        self._predict = self._jit("predict", source.predict) if source.predict is not None else None

    def train(
        self, params, state, slots, batch, valid, row_id, key, rows, iteration, learning_rate
    ) -> tuple[Any, Any, tuple[Any, ...], Any]:
        """One step. Returns new ``(params float32[P], state float32[S], slots, sums float32[M])``.

        Args:
            params, state, slots: flat vectors; given as JAX arrays they are donated (do not use them again).
            batch: array per input name; valid float32[b], row_id uint32[b], key uint32[2] (None where unread).
            rows: real rows of the batch; iteration: steps before this one; learning_rate.

        Raises:
            ShapeError: an array does not fit its input.
        """
        if self._train is None:
            raise ProgramError("this StepSource has no train and update graphs")
        names, call = self._train
        given = (valid, row_id, key, _scalar(rows), _ONE, _scalar(iteration, np.int32))
        arrays = _arrays(names, batch, given)
        return call(params, state, slots, arrays, _scalar(iteration, np.int32), _scalar(learning_rate))

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
        return call(params, state, _arrays(names, batch, (valid, None, None, _scalar(rows), _ONE, None)))

    def predict(self, params, state, batch) -> tuple:
        """The model's outputs for one batch."""
        if self._predict is None:
            raise ProgramError("this StepSource has no predict graph")
        names, call = self._predict
        return call(params, state, _arrays(names, batch, (None,) * 6))

    def _jit(self, kind: str, graph: Graph) -> tuple[tuple[str, ...], Callable]:
        """The graph as ``f(params, state, arrays)``, all stages in one executable."""
        graph = self._source.optimised(kind)
        names = tuple(n.attrs["name"] for n in graph.inputs)
        choosers = Choosers(graph)
        whole = _whole(choosers, kind, self._source)
        return names, _compiled(whole, choosers, 2)

    def _jit_train(self) -> tuple[tuple[str, ...], Callable]:
        layout = self._source.layout
        graph, update = self._source.optimised("train"), self._source.optimised("update")
        choosers = Choosers(graph)
        gradient = _whole(choosers, "train", self._source)
        segments = layout.segments() if any(n.attrs["name"] == "segment" for n in update.inputs) else None
        names = tuple(n.attrs["name"] for n in graph.inputs)

        def step(params, state, slots, arrays, iteration, learning_rate):
            gradients, new_state, sums = layout.split(gradient(params, state, arrays))
            given = {"param": params, "gradient": gradients, "learning_rate": learning_rate, "iteration": iteration}
            given |= {f"slot/{s.name}": v for s, v in zip(self._source.slots, slots)}
            if segments is not None:
                given["segment"] = jnp.asarray(segments)
            new_params, *new_slots = _run(pack_update(update, self._source.slots, {"n": layout.P}), given)
            return new_params, new_state, tuple(new_slots), sums

        return names, _compiled(step, choosers, 3, donate_argnums=(0, 1, 2))


def _compiled(function: Callable, choosers: Choosers, position: int, **settings: Any) -> Callable:
    """``jax.jit(function)`` with the XLA options that its first batch asks for.

    Args:
        choosers: for the graph that `function` computes; argument number `position` holds an array for each of its inputs.
        settings: of `jax.jit`.
    """
    made: list[Callable] = []

    def call(*arguments):
        if not made:
            arrays = arguments[position]
            there = all(a is not None for a in arrays)  # else `function` says what is missing
            options = choosers(sizes_of(choosers.graph.inputs, arrays)).options if there else None
            made.append(jax.jit(function, compiler_options=options or None, **settings))
        return made[0](*arguments)

    return call


def _whole(choosers: Choosers, kind: str, source: StepSource) -> Callable:
    graph = choosers.graph
    inputs: list[Node] = list(graph.inputs)
    names = [n.attrs["name"] for n in inputs]

    def whole(params, state, arrays):
        for name, value in zip(names, arrays):
            if value is None:
                raise ShapeError(f"the {kind} graph reads {name!r}, which was not given")
        arrays = [jnp.asarray(a) for a in arrays]
        sizes = sizes_of(inputs, arrays)
        packed = pack_step(graph, kind, source.layout, sizes, choosers(sizes))
        given = dict(zip(names, arrays)) | {"params": params, "state": state}
        return _run(packed, {"share": jnp.float32(1), **given})

    return whole


def _run(stages, named: Mapping[str, Any]) -> Any:
    """All stages one after another, sums being their own input."""
    carried: tuple = ()
    out = None
    for stage in stages:
        carried, out = stage.function([named[name] for name in stage.names], carried, out)
    return out


def _arrays(names: Sequence[str], batch: Mapping[str, Any], given: Sequence[Any]) -> tuple:
    control = dict(zip(CONTROL, given))
    try:
        return tuple(control[name] if name in control else batch[name] for name in names)
    except KeyError as error:
        raise ShapeError(f"the batch has no {error.args[0]!r}; it holds {', '.join(map(str, batch))}") from None


def _scalar(value: Any, dtype=np.float32) -> Any:
    return value if type(value) is dtype or isinstance(value, jax.Array) else dtype(value)
