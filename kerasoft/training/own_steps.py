"""`fit`, `evaluate` and `predict` of a model with steps of its own: its methods under `jax.jit`, in this process."""

from __future__ import annotations

import inspect
import time
from typing import Any

import numpy as np

from .. import tree
from ..callbacks.base import batch_callbacks, plain_logs
from ..errors import DataError
from ..runtime.loop import EpochEnd, Profile, StepReport
from . import checks
from .building import build, symbolic
from .local_fit import LATEST_S, _callback_list, _Source, _validation
from .status import Status
from .steps import Steps

_ARGUMENTS = {"train_step": 2, "test_step": 2, "predict_step": 2}


def check_signatures(model: Any) -> None:
    """
    Raises:
        NotImplementedError: a step in the form of the TensorFlow or PyTorch backend.
    """
    for name, count in _ARGUMENTS.items():
        kinds = inspect.signature(getattr(model, name)).parameters.values()
        named = [p for p in kinds if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if any(p.kind is p.VAR_POSITIONAL for p in kinds) or len(named) >= count:
            continue
        raise NotImplementedError(
            f"{type(model).__name__}.{name}({', '.join(p.name for p in named)}) is written for the TensorFlow or PyTorch "
            f"backend, which change variables in place. Steps are pure functions here, as with Keras on JAX: write "
            f"`{name}(self, state, data)`, get gradients by `jax.value_and_grad(self.compute_loss_and_updates, "
            "has_aux=True)` and new weights by `self.optimizer.stateless_apply(...)`; or override `compute_loss` and "
            "`compute_metrics` alone, which are the same on all backends."
        )


class _Loop:
    """The state of a model's variables while its own steps run; `Trainer._synchronise` writes it back.

    Attributes:
        kinds: which variables: a part of trainable, non_trainable, optimizer, metrics.
        state: their values, None while the variables themselves are up to date.
    """

    def __init__(self, model: Any, *kinds: str):
        self.model, self.kinds = model, kinds
        self.state: tuple | None = None

    def variables(self, kind: str) -> list:
        return self.model.optimizer.variables if kind == "optimizer" else getattr(self.model, f"{kind}_variables")

    def read(self) -> tuple:
        """The values to go on with."""
        if self.state is None:
            import jax.numpy as jnp

            self.state = tuple([jnp.asarray(v.numpy()) for v in self.variables(kind)] for kind in self.kinds)
        return self.state

    def synchronise(self) -> None:
        if self.state is None:
            return
        state, self.state = self.state, None
        for kind, values in zip(self.kinds, state, strict=True):
            for variable, value in zip(self.variables(kind), values, strict=False):
                variable.assign(np.asarray(value))


def fit_with_own_steps(
    model: Any,
    x: Any,
    y: Any,
    batch_size: Any,
    epochs: int,
    verbose: Any,
    callbacks: Any,
    validation_split: float,
    validation_data: Any,
    shuffle: Any,
    class_weight: Any,
    sample_weight: Any,
    initial_epoch: int,
    steps_per_epoch: int | None,
    validation_steps: int | None,
    validation_batch_size: int | None,
    validation_freq: Any,
    seed: int | None,
    begin: float,
) -> Any:
    """`Trainer.fit` on arrays or batches."""
    check_signatures(model)
    checks.check_validation_freq(validation_freq)
    train = _Source(model, x, y, sample_weight, batch_size, steps_per_epoch, class_weight, "fit")
    validation = None
    if validation_data is None and validation_split:
        validation = train.split_off(validation_split, validation_batch_size or batch_size, validation_steps)
    elif validation_data is not None:
        validation = _validation(model, validation_data, validation_batch_size or batch_size, validation_steps)
    prepare(model, train.signature)
    seed = int(np.random.randint(0, 2**31 - 1)) if seed is None else int(seed)
    status = model._trainer.status = Status(seed=seed)
    feed = train.feed(bool(shuffle), seed, True)
    callbacks = _callback_list(model, callbacks, verbose, epochs, feed.steps, history=True)
    model.make_train_function()
    model.stop_training = False
    loop = model._trainer.hooks = _Loop(model, "trainable", "non_trainable", "optimizer", "metrics")
    logs: dict[str, Any] = {}
    steps = rows = 0
    finished = False
    try:
        callbacks.on_train_begin()
        resume, model._resume = model._resume, None
        for epoch in range(resume["epoch"] if resume else initial_epoch, epochs):
            start, status.epoch, status.step, status.rows = time.perf_counter(), epoch, 0, 0
            model.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            logs = _train_epoch(model, loop, feed, train.signature, callbacks, epoch, status)
            if not status.step:
                break
            loop.synchronise()
            logs = _results(model, logs)
            steps, rows = steps + status.step, rows + status.rows
            if validation is not None and _validates(epoch, validation_freq):
                at = model._trainer.status
                checked = _evaluate(model, validation, callbacks)
                model._trainer.status = at
                model._trainer.hooks = loop
                logs |= {f"val_{name}": value for name, value in checked.items()}
            status.end = _end(model, status, epoch, time.perf_counter() - start)
            callbacks.on_epoch_end(epoch, dict(logs))
            if model.stop_training:
                break
        finished = True
    finally:
        loop.synchronise()
        model._trainer.hooks = None
        if epochs > 0:
            model.optimizer.finalize_variable_values(model.trainable_weights)
    if finished:
        callbacks.on_train_end(dict(logs))
    model._trainer.profile = Profile.of(time.perf_counter() - begin, {}, steps=steps, rows=rows)
    return model.history


def evaluate_with_own_steps(
    model: Any,
    x: Any,
    y: Any,
    batch_size: Any,
    verbose: Any,
    sample_weight: Any,
    steps: Any,
    callbacks: Any,
    whole: bool,
) -> dict[str, Any]:
    """`Trainer.evaluate` on arrays or batches; the logs. `whole`: all rows in one batch."""
    check_signatures(model)
    source = _Source(model, x, y, sample_weight, batch_size, steps, None, "evaluate")
    if whole and source.arrays is not None:
        source.batch_size = source.arrays.rows
    prepare(model, source.signature)
    callbacks = _callback_list(model, callbacks, verbose, 1, source.feed(False, 0, True).steps)
    try:
        return _evaluate(model, source, callbacks)
    finally:
        model._trainer.hooks = None


def predict_with_own_steps(
    model: Any, x: Any, batch_size: Any, verbose: Any, steps: Any, callbacks: Any, whole: bool
) -> Any:
    """`Trainer.predict` on arrays or batches."""
    check_signatures(model)
    source = _Source(model, x, None, None, batch_size, steps, None, "predict")
    if whole and source.arrays is not None:
        source.batch_size = source.arrays.rows
    build(model, source.signature)
    feed = source.feed(False, 0, True)
    callbacks = _callback_list(model, callbacks, verbose, 1, feed.steps)
    told = batch_callbacks(callbacks.callbacks, "predict")
    function = model.make_predict_function() or model.predict_function
    loop = _Loop(model, "trainable", "non_trainable")
    model.stop_predicting = False
    status = model._trainer.status = Status()
    callbacks.on_predict_begin()
    parts: list[list[np.ndarray]] = []
    outputs: Any = None
    for number, batch in enumerate(feed.epoch(0)):
        for callback in told:
            callback.on_predict_batch_begin(number, {})
        outputs, loop.state = function(loop.read(), iter([data_of(source.signature, batch)]))
        parts.append([np.asarray(leaf) for leaf in tree.flatten(outputs)])
        status.rows, status.step = status.rows + batch.rows, number + 1
        for callback in told:
            callback.on_predict_batch_end(number, {"outputs": outputs})
        if model.stop_predicting:
            break
    callbacks.on_predict_end()
    if not parts:
        raise DataError("there is no data: nothing was predicted")
    return tree.pack_as(outputs, [np.concatenate(leaves) for leaves in zip(*parts, strict=True)])


def train_on_batch_with_own_steps(model: Any, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> dict[str, Any]:
    """`Trainer.train_on_batch`; the logs."""
    check_signatures(model)
    source = _Source(model, x, y, sample_weight, None, None, class_weight, "fit")
    source.batch_size = source.arrays.rows
    prepare(model, source.signature)
    model.make_train_function()
    model.reset_metrics()
    (batch,) = source.feed(False, 0, True).epoch(0)
    loop = _Loop(model, "trainable", "non_trainable", "optimizer", "metrics")
    logs, loop.state = model.train_function(loop.read(), iter([data_of(source.signature, batch)]))
    loop.synchronise()
    return _final(model, logs)


# --- one epoch, one pass --------------------------------------------------------------------------------------------


def _train_epoch(model, loop, feed, signature, callbacks, epoch, status) -> dict[str, Any]:
    """The logs of the last step."""
    told = batch_callbacks(callbacks.callbacks, "train")
    each = [c for c in told if c.batch_calls != "latest"]
    shown, next_shown = [c for c in told if c.batch_calls == "latest"], 0.0
    logs: dict[str, Any] = {}
    before = time.perf_counter()
    for number, batch in enumerate(feed.epoch(epoch)):
        for callback in each:
            callback.on_train_batch_begin(number, {})
        logs, loop.state = model.train_function(loop.read(), iter([data_of(signature, batch)]))
        status.step, status.rows = number + 1, status.rows + batch.rows
        now = time.perf_counter()
        due = [*each, *(shown if now >= next_shown else [])]
        if due:
            status.report = StepReport(
                epoch, number, batch.rows, np.zeros(0), {"compute": now - before}, _iteration(model, loop)
            )
            plain = plain_logs(logs)
            for callback in due:
                callback.on_train_batch_end(number, plain)
            if now >= next_shown:
                next_shown = time.perf_counter() + LATEST_S
        before = time.perf_counter()
        if model.stop_training:
            break
    return logs


def _evaluate(model: Any, source: Any, callbacks: Any) -> dict[str, Any]:
    told = batch_callbacks(callbacks.callbacks, "test")
    model.make_test_function()
    model.stop_evaluating = False
    status = model._trainer.status = Status()
    callbacks.on_test_begin()
    model.reset_metrics()
    loop = model._trainer.hooks = _Loop(model, "trainable", "non_trainable", "metrics")
    logs: dict[str, Any] = {}
    for number, batch in enumerate(source.feed(False, 0, True).epoch(0)):
        for callback in told:
            callback.on_test_batch_begin(number, {})
        logs, loop.state = model.test_function(loop.read(), iter([data_of(source.signature, batch)]))
        status.step, status.rows = number + 1, status.rows + batch.rows
        if told:
            plain = plain_logs(logs)
            for callback in told:
                callback.on_test_batch_end(number, plain)
        if model.stop_evaluating:
            break
    loop.synchronise()
    if not status.step:
        raise DataError("there is no data to evaluate: the generator gave no more rows")
    logs = _final(model, logs)
    callbacks.on_test_end(dict(logs))
    return logs


def _results(model: Any, logs: Any) -> dict[str, Any]:
    """The model's metrics where a step gives just these, else what the last step gave."""
    results = model.get_metrics_result()
    return results if set(logs) == set(results) else dict(logs)


def _final(model: Any, logs: Any) -> dict[str, Any]:
    return plain_logs(_results(model, logs))


def _validates(epoch: int, validation_freq: Any) -> bool:
    if isinstance(validation_freq, int):
        return (epoch + 1) % validation_freq == 0
    return epoch + 1 in validation_freq


def _iteration(model: Any, loop: _Loop) -> int:
    return int(loop.read()[loop.kinds.index("optimizer")][0]) if model.optimizer.variables else 0


def _end(model: Any, status: Status, epoch: int, wall_s: float) -> EpochEnd:
    nothing = np.zeros(0)
    return EpochEnd(
        epoch, status.step, status.rows, nothing, None, {}, wall_s, int(model.optimizer._iterations.numpy()), 0.0,
        lambda: (nothing, nothing), lambda: (),
    )  # fmt: skip


# --- data and building ------------------------------------------------------------------------------------------------


def data_of(signature: Any, batch: Any) -> Any:
    """A batch as ``x``, ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``."""

    def part(structure: Any) -> Any:
        return tree.map_structure(lambda leaf: None if leaf is None else batch.arrays[leaf.name], structure)

    x = part(signature.x)
    if signature.sample_weight is not None:
        return x, None if signature.y is None else part(signature.y), part(signature.sample_weight)
    if signature.y is not None:
        return x, part(signature.y)
    return (x,) if isinstance(x, (list, tuple)) else x


def prepare(model: Any, signature: Any) -> None:
    """Builds the model, its optimizer and its metrics for such arrays.

    Raises:
        DataError: sparse rows, which only the built-in steps take.
    """
    if any(leaf.columns is not None for leaf in signature.leaves):
        raise DataError(
            f"{type(model).__name__} has a step of its own, which takes dense arrays, but x is a sparse matrix. Give "
            "x.toarray(), or leave the step to `compile(loss=...)`."
        )
    x = build(model, signature)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    compiled = model._trainer.compile
    if signature.y is not None and compiled.targets is None and compiled.arguments != type(compiled.arguments)():
        y, weights, y_pred = symbolic(signature.y), symbolic(signature.sample_weight), model.compute_output_spec(x)
        try:
            compiled.at(y, y_pred, weights)
        except ValueError:
            if type(model).compute_loss is Steps.compute_loss:
                raise  # else it makes others of the outputs, which are known when a step is traced
