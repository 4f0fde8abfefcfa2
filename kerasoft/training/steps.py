"""Steps: what one step of training, testing and predicting is, in Keras' stateless form; a model may override any of it.

`fit` compiles a model that overrides nothing into one graph (`trace.py`). A model that overrides `train_step`,
`test_step`, `predict_step`, `compute_loss`, `compute_metrics` or `metrics` is run through these methods under `jax.jit`
(`own_steps.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import ops, tree
from ..dtypes import is_float
from ..runtime.loop import step_keys
from ..stateless import StatelessScope, step_key
from .compiled import result_of
from .inputs import unpack

OVERRIDABLE = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "metrics")


class Steps:
    """The part of `Trainer` that defines steps.

    Values of variables are passed as lists: `trainable_variables`, `non_trainable_variables`, `optimizer_variables` and
    `metrics_variables`, in the order of the properties of these names (``optimizer.variables`` for the optimizer).
    """

    # --- metrics ---

    @property
    def metrics(self) -> list:
        """The mean loss, the compiled metrics (as one), each output's loss, and the metrics of the model and its layers."""
        compiled = self._trainer.compile  # type: ignore[attr-defined]
        found = []
        if compiled is not None:
            found = [compiled.tracker, *([compiled.metrics] if compiled.metrics is not None else [])]
            found += compiled.trackers.values()
        return found + self._own_metrics

    @property
    def _own_metrics(self) -> list:
        """Metrics that are attributes of the model or of its layers."""
        found = list(self._metrics)  # type: ignore[attr-defined]
        for layer in self._flatten_layers()[1:]:  # type: ignore[attr-defined]
            if not isinstance(layer, Steps):
                found += [m for m in layer._metrics if not any(m is known for known in found)]
        return found

    @property
    def metrics_names(self) -> list[str]:
        """The names of `metrics`."""
        return [metric.name for metric in self.metrics]

    @property
    def metrics_variables(self) -> list:
        """The states of `metrics`."""
        return [v for metric in self.metrics for v in metric.variables]

    def reset_metrics(self) -> None:
        """Sets the states of all metrics back."""
        for metric in self.metrics:
            metric.reset_state()

    def get_metrics_result(self) -> dict[str, Any]:
        """The value of each of `metrics` by name; a metric with several values gives them all."""
        found: dict[str, Any] = {}
        for metric in self.metrics:
            result = result_of(metric)
            found.update(result if isinstance(result, dict) else {metric.name: result})
        return found

    # --- losses ---

    @property
    def losses(self) -> list:
        """What `add_loss` and the regularizers give."""
        override = self._trainer.losses_override  # type: ignore[attr-defined]
        return list(override) if override else super().losses  # type: ignore[misc]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The total loss of a batch: the compiled loss and what `add_loss` and regularizers give. May be overridden.

        Args:
            x, y, sample_weight: of the batch. y_pred: the model's outputs.
            training: False when it is called by `test_step`.
        """
        compiled = self._trainer.compile  # type: ignore[attr-defined]
        loss = None if compiled is None else compiled.loss(y, y_pred, sample_weight)
        parts = [] if loss is None else [loss]
        for loss in self.losses:
            loss = loss if is_float(loss.dtype) else ops.cast(loss, "float32")
            parts.append(ops.sum(loss))
        if not parts:
            return ops.zeros(())
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def _compute_loss(self, x, y, y_pred, sample_weight, training):
        """`compute_loss`, also one without the argument `training`."""
        parameters = inspect.signature(self.compute_loss).parameters
        if "training" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return self.compute_loss(x, y, y_pred, sample_weight, training=training)
        return self.compute_loss(x, y, y_pred, sample_weight)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates the compiled metrics and gives the values of all. May be overridden."""
        compiled = self._trainer.compile  # type: ignore[attr-defined]
        if compiled is not None and compiled.metrics is not None:
            compiled.metrics.update_state(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def stateless_compute_loss(
        self,
        trainable_variables,
        non_trainable_variables,
        metrics_variables,
        x=None,
        y=None,
        y_pred=None,
        sample_weight=None,
        training=True,
    ):
        """The loss, and ``(trainable, non_trainable, metrics)`` variables after `compute_loss`, without side effects."""
        mapping = [
            *zip(self.trainable_variables, trainable_variables, strict=True),  # type: ignore[attr-defined]
            *zip(self.non_trainable_variables, non_trainable_variables, strict=True),  # type: ignore[attr-defined]
            *zip(self.metrics_variables, metrics_variables, strict=True),
        ]
        with StatelessScope(mapping) as scope:
            loss = self._compute_loss(x, y, y_pred, sample_weight, training)
            state = [scope.value_of(v) for v in self.non_trainable_variables]  # type: ignore[attr-defined]
            metrics = [scope.value_of(v) for v in self.metrics_variables]
        return loss, (trainable_variables, state, metrics)

    def compute_loss_and_updates(
        self,
        trainable_variables,
        non_trainable_variables,
        metrics_variables,
        x,
        y,
        sample_weight,
        training=False,
        optimizer_variables=None,
    ):
        """The loss as a pure function, for ``jax.value_and_grad(..., has_aux=True)``.

        Returns:
            ``(loss, (unscaled loss, y_pred, non_trainable_variables, metrics_variables))``.
        """
        y_pred, non_trainable_variables, losses = self.stateless_call(  # type: ignore[attr-defined]
            trainable_variables, non_trainable_variables, x, return_losses=True, training=training
        )
        state = self._trainer  # type: ignore[attr-defined]
        state.losses_override = losses
        try:
            loss, (_, non_trainable_variables, metrics_variables) = self.stateless_compute_loss(
                trainable_variables,
                non_trainable_variables,
                metrics_variables,
                x=x,
                y=y,
                y_pred=y_pred,
                sample_weight=sample_weight,
                training=training,
            )
        finally:
            state.losses_override = None
        unscaled = loss
        if training and self.optimizer is not None and optimizer_variables is not None:  # type: ignore[attr-defined]
            mapping = zip(self.optimizer.variables, optimizer_variables, strict=True)  # type: ignore[attr-defined]
            with StatelessScope(mapping):
                loss = self.optimizer.scale_loss(loss)  # type: ignore[attr-defined]
        return loss, (unscaled, y_pred, non_trainable_variables, metrics_variables)

    # --- steps ---

    def train_step(self, state, data):
        """One step of training, without side effects. May be overridden.

        Args:
            state: ``(trainable, non_trainable, optimizer, metrics)`` variables.
            data: ``(x, y, sample_weight)``, or a part of it.

        Returns:
            ``(logs, state)``.
        """
        import jax

        trainable, non_trainable, optimizer, metrics = state
        x, y, sample_weight = unpack(data)
        gradient = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
        (_, aux), gradients = gradient(
            trainable,
            non_trainable,
            metrics,
            x,
            y,
            sample_weight,
            training=True,
            optimizer_variables=optimizer,
        )
        loss, y_pred, non_trainable, metrics = aux
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)  # type: ignore[attr-defined]
        logs, metrics = self._update_metrics_variables(metrics, loss, x, y, y_pred, sample_weight)
        return logs, (trainable, non_trainable, optimizer, metrics)

    def test_step(self, state, data):
        """One step of testing: as `train_step`, with ``(trainable, non_trainable, metrics)`` variables."""
        trainable, non_trainable, metrics = state
        x, y, sample_weight = unpack(data)
        _, (loss, y_pred, non_trainable, metrics) = self.compute_loss_and_updates(
            trainable, non_trainable, metrics, x, y, sample_weight, training=False
        )
        logs, metrics = self._update_metrics_variables(metrics, loss, x, y, y_pred, sample_weight)
        return logs, (trainable, non_trainable, metrics)

    def predict_step(self, state, data):
        """The outputs for a batch and the non-trainable variables; `state` is ``(trainable, non_trainable)``."""
        trainable, non_trainable = state
        x, _, _ = unpack(data)
        return self.stateless_call(trainable, non_trainable, x, training=False)  # type: ignore[attr-defined]

    def _update_metrics_variables(self, metrics_variables, unscaled_loss, x, y, y_pred, sample_weight):
        mapping = zip(self.metrics_variables, metrics_variables, strict=True)
        with StatelessScope(mapping) as scope:
            compiled = self._trainer.compile  # type: ignore[attr-defined]
            first = next(leaf for leaf in tree.flatten(x) if leaf is not None)
            compiled.tracker.update_state(unscaled_loss, sample_weight=int(first.shape[0]))
            logs = self.compute_metrics(x, y, y_pred, sample_weight)
            return logs, [scope.value_of(v) for v in self.metrics_variables]

    # --- functions over an iterator ---

    def make_train_function(self, force=False):
        """Makes `train_function`: ``(state, iterator of batches) -> (logs, state)``."""
        self._make_function("train_function", "train_step", force)

    def make_test_function(self, force=False):
        """Makes `test_function`."""
        self._make_function("test_function", "test_step", force)

    def make_predict_function(self, force=False):
        """Makes `predict_function`."""
        self._make_function("predict_function", "predict_step", force)
        return self.predict_function

    def _make_function(self, name: str, method: str, force: bool) -> None:
        import jax

        functions = self._trainer.functions  # type: ignore[attr-defined]
        if functions.get(name) is not None and not force:
            return
        eager = bool(self.run_eagerly)  # type: ignore[attr-defined]
        random_keys = keys(self._trainer.status.seed)  # type: ignore[attr-defined]

        def step(state, data, key):
            with step_key(key):
                return getattr(self, method)(state, data)

        run = step if eager else jax.jit(step)

        def function(state, iterator):
            outputs, after = run(state, next(iterator), next(random_keys))
            return outputs, (state[0], after) if method == "predict_step" else after

        functions[name] = function

    @property
    def train_function(self) -> Any:
        return self._trainer.functions.get("train_function")  # type: ignore[attr-defined]

    @train_function.setter
    def train_function(self, function: Any) -> None:
        self._trainer.functions["train_function"] = function  # type: ignore[attr-defined]

    @property
    def test_function(self) -> Any:
        return self._trainer.functions.get("test_function")  # type: ignore[attr-defined]

    @test_function.setter
    def test_function(self, function: Any) -> None:
        self._trainer.functions["test_function"] = function  # type: ignore[attr-defined]

    @property
    def predict_function(self) -> Any:
        return self._trainer.functions.get("predict_function")  # type: ignore[attr-defined]

    @predict_function.setter
    def predict_function(self, function: Any) -> None:
        self._trainer.functions["predict_function"] = function  # type: ignore[attr-defined]

    def jax_state_sync(self) -> None:
        """Brings the variables up to date while a `fit` is under way."""
        self._synchronise()  # type: ignore[attr-defined]

    # --- state as a tree ---

    def get_state_tree(self, value_format="backend_tensor"):
        """The values of all variables, nested by the parts of their paths.

        Args:
            value_format: "backend_tensor" or "numpy_array".

        >>> import kerasoft as ks
        >>> model = ks.Sequential([ks.Input((1,)), ks.layers.Dense(1, name="out")], name="net")
        >>> sorted(model.get_state_tree()["trainable_variables"]["net"]["out"])
        ['bias', 'kernel']
        """
        if value_format not in ("backend_tensor", "numpy_array"):
            raise ValueError(
                "Invalid `value_format` argument. Expected one of {'numpy_array', 'backend_tensor'}. "
                f"Received: value_format={value_format}"
            )
        return {kind: _nested(variables, value_format) for kind, variables in self._by_kind().items()}

    def set_state_tree(self, state_tree):
        """Sets the variables that `get_state_tree` gave.

        Raises:
            ValueError: an unknown kind of variables.
        """
        kinds = self._by_kind()
        for kind, values in state_tree.items():
            if kind not in kinds:
                raise ValueError(f"Unknown variable name: {kind}")
            by_path = dict(_paths(values))
            for variable in kinds[kind]:
                if variable.path in by_path:
                    variable.assign(by_path[variable.path])

    def _by_kind(self) -> dict[str, list]:
        optimizer = self.optimizer  # type: ignore[attr-defined]
        return {
            "trainable_variables": self.trainable_variables,  # type: ignore[attr-defined]
            "non_trainable_variables": self.non_trainable_variables,  # type: ignore[attr-defined]
            "optimizer_variables": [] if optimizer is None else optimizer.variables,
            "metrics_variables": self.metrics_variables,
        }


def keys(seed: int) -> Iterator[np.ndarray]:
    """Random keys, one a step."""
    first = 0
    while True:
        yield from step_keys(seed, first, 256)
        first += 256


def overrides_steps(model: Any) -> bool:
    """Whether `fit` must run the model's own methods."""
    cls = type(model)
    return any(getattr(cls, name) is not getattr(Steps, name) for name in OVERRIDABLE) or bool(model._own_metrics)


def trains_by_steps(model: Any) -> bool:
    """Whether `fit` on arrays must run the model's methods: they are its own, or the loss is scaled as training goes."""
    from ..optimizers import LossScaleOptimizer

    return isinstance(model.optimizer, LossScaleOptimizer) or overrides_steps(model)


def _nested(variables: list, value_format: str) -> dict:
    import jax.numpy as jnp

    found: dict[str, Any] = {}
    for variable in variables:
        *parents, name = variable.path.split("/")
        at = found
        for parent in parents:
            at = at.setdefault(parent, {})
        if name in at:
            raise ValueError(
                f"The following variable path is found twice in the model: '{variable.path}'. `get_state_tree()` can only be "
                "called when all variable paths are unique. Make sure to give unique names to your layers (and other "
                "objects)."
            )
        at[name] = jnp.asarray(variable.numpy()) if value_format == "backend_tensor" else variable.numpy().copy()
    return found


def _paths(values: dict, prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in values.items():
        found += _paths(value, f"{prefix}{key}/") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found
