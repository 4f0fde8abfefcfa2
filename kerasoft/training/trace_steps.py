"""Trace of a model with steps of its own: its methods become one op of the train and test graphs.

The model's `train_step` runs as it stands, but its call of `self.optimizer.stateless_apply` gives its gradients to the
graph instead of making a step: they are multiplied by this call's share of the rows, added up over shards and workers,
and applied by the update graph. So a cluster makes the step of the global batch where the step's loss is a mean over its
rows. Metrics begin at their first values in every call, and what they gain is added up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..compiler.ops.registry import Op, constant, items
from ..scope import Scope
from ..stateless import step_key
from .trace import Traced, _Trace


class OwnTargets:
    """Logs from sums: of a model's own metrics, or of what its steps give where these are not just the metrics."""

    losses: tuple = ()
    metrics: tuple = ()
    reports_each_loss = False

    def __init__(self, model: Any):
        self.model = model

    def logs(self, layout: Any, sums: np.ndarray) -> dict[str, Any]:
        start = layout.sums[0].offset if layout.sums else 0
        values = {e.name: sums[e.offset - start : e.end - start].reshape(e.shape) for e in layout.sums}
        rows = {n.removeprefix("rows/"): float(v) for n, v in values.items() if n.startswith("rows/") and v > 0}
        if rows:  # the step's own logs, means over rows
            return {name: float(values[f"mean/{name}"]) / count for name, count in rows.items()}
        found: dict[str, Any] = {}
        for i, metric in enumerate(self.model.metrics):
            prefix = f"metric{i}/"
            result = metric.result_from({n[len(prefix) :]: v for n, v in values.items() if n.startswith(prefix)})
            found.update(result if isinstance(result, dict) else {metric.name: result})
        return found


class _Catch:
    """Stands for the optimizer while a step is traced."""

    def __init__(self, optimizer: Any):
        self._optimizer = optimizer
        self.gradients: list | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def stateless_apply(self, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> tuple:
        if self.gradients is not None:
            raise NotImplementedError(
                "`train_step` calls `self.optimizer.stateless_apply` more than once; on a cluster the gradients of one "
                "step are added up over the workers and applied once. Train on arrays, or make one call."
            )
        self.gradients = list(grads)
        return trainable_variables, optimizer_variables


class _OwnTrace(_Trace):
    """As `_Trace`, for a model with steps of its own."""

    targets: Any

    def __init__(self, model: Any, signature: Any):
        super().__init__(model, signature, None, padded=False)
        self.exact_rows = self.couples_rows = True
        self.targets = OwnTargets(model)
        self.metric_variables = model.metrics_variables
        self.start: list[np.ndarray] = []
        self.results: set[str] = set()

    def run(self, parts: Sequence[str], optimizer: Any) -> Traced:
        self.model.reset_metrics()
        self.start = [np.asarray(v.numpy()) for v in self.metric_variables]
        self.results = set(self.model.get_metrics_result())
        with self._scope(False):
            self._forward(False)
        return super().run(parts, optimizer)

    def _train(self) -> tuple[Any, dict]:
        model = self.model
        with self._scope(True) as scope:

            def run(trainable, non_trainable, data):
                catch = _Catch(model.optimizer)
                variables = [v.numpy() for v in model.optimizer.variables]
                kept, model._trainer.optimizer = model._trainer.optimizer, catch
                try:
                    logs, state = model.train_step((trainable, non_trainable, variables, self._states()), data)
                finally:
                    model._trainer.optimizer = kept
                if catch.gradients is None:
                    raise NotImplementedError(
                        f"{type(model).__name__}.train_step never calls `self.optimizer.stateless_apply`, through which a "
                        "cluster gets the gradients. Call it once, or train on arrays."
                    )
                gradients = [
                    np.zeros(v.shape, "float32") if g is None else g
                    for v, g in zip(self.trainable, catch.gradients, strict=True)
                ]
                return gradients, state[1], logs, state[3]

            gradients, states, sums = self._call(scope, run)
        found = {f"grad/{self._name(scope, v)}": g for v, g in zip(self.trainable, gradients, strict=True)}
        assigned = {f"state/{self._name(scope, v)}": s for v, s in states}
        return self._graph({**found, **assigned, **{f"sum/{name}": node for name, node in sums.items()}}), sums

    def _test(self) -> tuple[Any, dict]:
        with self._scope(False) as scope:

            def run(trainable, non_trainable, data):
                logs, state = self.model.test_step((trainable, non_trainable, self._states()), data)
                return [], state[1], logs, state[2]

            _, _, sums = self._call(scope, run)
        return self._graph({f"sum/{name}": node for name, node in sums.items()}), sums

    # --- one op ---

    def _states(self) -> list:
        import jax.numpy as jnp

        return [jnp.asarray(value) for value in self.start]

    def _name(self, scope: Scope, variable: Any) -> str:
        node = scope.node_of(variable)
        return node.attrs["name"]

    def _call(self, scope: Scope, run: Callable) -> tuple[list, list, dict[str, Any]]:
        """Gradients, pairs of a state and its value (all times this call's share of the rows), and sums."""
        import jax

        model = self.model
        weights = {id(v) for v in self.variables}
        others = [v for v in model.non_trainable_variables if id(v) in weights]
        arrays = list(self.inputs.values())
        given = [*(scope.node_of(v) for v in [*self.trainable, *others]), *arrays]
        given.append(scope.key if scope.training else constant(np.zeros(2, "uint32")))  # a test graph has no key
        described: dict[str, Any] = {}

        def step(*values):
            state, rest = values[: len(self.trainable) + len(others)], values[len(self.trainable) + len(others) :]
            by_id = {id(v): value for v, value in zip(others, state[len(self.trainable) :], strict=True)}
            non_trainable = [by_id.get(id(v), v.numpy()) for v in model.non_trainable_variables]
            batch = dict(zip(self.inputs, rest[:-1], strict=True))
            with step_key(rest[-1]):
                gradients, after, logs, metrics = run(
                    list(state[: len(self.trainable)]), non_trainable, self._data(batch)
                )
            kept = [a for v, a in zip(model.non_trainable_variables, after, strict=True) if id(v) in by_id]
            gained = [m - s for m, s in zip(metrics, self.start, strict=True)]
            scalars = {name: value for name, value in _flat(logs).items() if np.ndim(value) == 0}
            described.update(logs=tuple(scalars), gradients=len(gradients), states=len(kept))
            found = [*gradients, *kept, *gained, *scalars.values()]
            return tuple(jax.numpy.asarray(value, "float32") for value in found)

        def result(types: Any, attrs: Any) -> Any:
            from ..compiler.ops.registry import _type_of

            shapes = [
                jax.ShapeDtypeStruct(tuple(d if isinstance(d, int) else 2 for d in t.shape), t.dtype) for t in types
            ]
            return _type_of(jax.eval_shape(step, *shapes))

        op = Op("own_step", step, None, None, None, True, doc="A step of the user's model.", result=result)
        values = list(items(op(*given)))
        n, m = described["gradients"], described["states"]
        share = scope.share
        gradients = [ops.multiply(value, share) for value in values[:n]]
        states = [(v, ops.multiply(value, share)) for v, value in zip(others, values[n : n + m], strict=False) if n]
        count = len(self.metric_variables)
        gained, scalars = values[n + m : n + m + count], values[n + m + count :]
        rows = ops.multiply(scope.rows, share)
        sums: dict[str, Any] = {}
        at = iter(gained)
        for i, metric in enumerate(model.metrics):
            for name in metric.states():
                sums[f"metric{i}/{name}"] = next(at)
        if set(described["logs"]) != self.results:
            for name, value in zip(described["logs"], scalars, strict=True):
                sums |= {f"mean/{name}": ops.multiply(value, rows), f"rows/{name}": rows}
        return gradients, states, sums

    def _data(self, batch: dict[str, Any]) -> Any:
        from ..runtime.local import Batch
        from .own_steps import data_of

        return data_of(self.signature, Batch(batch, None, None, 0))


def _flat(logs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in logs.items():
        found.update(_flat(value) if isinstance(value, dict) else {name: value})
    return found


def trace_own_steps(model: Any, signature: Any, parts: Sequence[str], optimizer: Any) -> Traced:
    """As `trace.trace_model`, for a model with steps of its own.

    Raises:
        NotImplementedError: `train_step` does not call `self.optimizer.stateless_apply` once.
    """
    from .own_steps import check_signatures, prepare

    check_signatures(model)
    prepare(model, signature)
    return _OwnTrace(model, signature).run(parts, optimizer)
