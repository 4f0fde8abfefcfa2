"""What `fit`, `evaluate` and `predict` do with arrays and generators: all in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import tree
from ..callbacks.base import CallbackList, batch_callbacks, plain_logs
from ..callbacks.terminate_on_nan import TerminateOnNaN
from ..errors import DataError
from ..models.host_part import on_host
from ..runtime.local import LocalLoop, sum_batches
from ..runtime.loop import Profile, TrainJob, step_keys
from . import checks, label_checks
from .building import DrawAhead, build, read_ahead
from .feeds import ArrayFeed, GeneratorFeed
from .hooks import FitHooks
from .inputs import Arrays, class_weights, is_arrays, split_validation, to_arrays, unpack
from .status import Status
from .together import batches_together

LATEST_S = 0.1


def fit_local(
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
    begin: float | None = None,
) -> Any:
    """`Trainer.fit` on arrays or batches."""
    begin = time.perf_counter() if begin is None else begin
    checks.check_validation_freq(validation_freq)
    train = _Source(model, x, y, sample_weight, batch_size, steps_per_epoch, class_weight, "fit")
    validation = None
    if validation_data is None and validation_split:
        validation = train.split_off(validation_split, validation_batch_size or batch_size, validation_steps)
    elif validation_data is not None:
        validation = _validation(model, validation_data, validation_batch_size or batch_size, validation_steps)
    ahead = draws = None
    if not model._trainer.programs:
        ahead, draws = read_ahead(model, train.signature, train.batch_size), DrawAhead(model)
    program = model._program(train.signature, "train")
    source = program.source
    train.check(program.traced, finite=not _ends_on_nan(callbacks))
    read_s = time.perf_counter() - begin
    if validation is not None:
        validation.program = model._program(validation.signature, "test")
        validation.check(validation.program.traced)
    seed = int(np.random.randint(0, 2**31 - 1)) if seed is None else int(seed)
    status = model._trainer.status = Status(seed=seed, source=source)
    feed = train.feed(bool(shuffle), seed, source.flags.exact_rows)
    callbacks = _callback_list(model, callbacks, verbose, epochs, feed.steps, history=True)
    hooks = FitHooks(model, callbacks, program.traced.targets, source.layout, program.store, status)
    optimizer = model.optimizer
    model.stop_training = False
    callbacks.on_train_begin()
    resume, model._resume = model._resume, None
    if resume is not None:
        initial_epoch = resume["epoch"]
        seed = status.seed = feed.seed = resume["seed"]
        if resume["batch"]:
            hooks.carry(resume["sums"], resume["rows"])
    if draws is not None:
        draws.settle()
    params, state = program.store.read()
    job = TrainJob(
        source=source,
        params=params,
        state=state,
        slots=optimizer.variables_to_slots(source.layout),
        iteration=int(optimizer._iterations.numpy()),
        batch_size=train.batch_size,
        epochs=epochs,
        initial_epoch=initial_epoch,
        seed=seed,
        shuffle=bool(shuffle),
        validation_freq=validation_freq,
        steps_per_epoch=steps_per_epoch,
        initial_step=resume["batch"] if resume else 0,
    )
    loop = LocalLoop(job, hooks, program.step)
    validate = None if validation is None else _validator(model, validation, callbacks)
    prepared_s = time.perf_counter() - begin
    model._trainer.hooks = hooks
    result = None
    try:
        result = loop.run(feed, validate)
        hooks.finish(result)
    except BaseException:
        hooks.rescue()
        raise
    finally:
        model._trainer.hooks = None
        if epochs > initial_epoch:
            optimizer.finalize_variable_values(model.trainable_weights)
    callbacks.on_train_end(dict(hooks.logs))
    if ahead is not None:
        ahead.finish()
    seconds = {p: s for p, s in result.profile.seconds.items() if p != "other"}
    seconds["input"] = seconds.get("input", 0.0) + read_s
    seconds["compile"] = seconds.get("compile", 0.0) + prepared_s - read_s
    wall_s = time.perf_counter() - begin
    model._trainer.profile = Profile.of(wall_s, seconds, steps=result.profile.steps, rows=result.profile.rows)
    return model.history


def evaluate_local(
    model: Any,
    x: Any,
    y: Any,
    batch_size: Any,
    verbose: Any,
    sample_weight: Any,
    steps: int | None,
    callbacks: Any,
    whole: bool = False,
) -> dict[str, Any]:
    """`Trainer.evaluate` on arrays or batches; the logs. `whole`: all rows in one batch."""
    source = _Source(model, x, y, sample_weight, batch_size, steps, None, "evaluate")
    if whole:
        source.batch_size = source.arrays.rows
    source.program = model._program(source.signature, "test")
    source.check(source.program.traced)
    callbacks = _callback_list(model, callbacks, verbose, 1, source.feed(False, 0, False).steps)
    model._trainer.status = Status()
    model.stop_evaluating = False
    status = model._trainer.status
    sums, status.rows = _test(model, source, callbacks, source.program.device_weights)
    logs = plain_logs(source.program.traced.targets.logs(source.program.source.layout, sums))
    model._trainer.compile.assign(source.program.source.layout, sums)
    callbacks.on_test_end(dict(logs))
    return logs


def predict_local(
    model: Any, x: Any, batch_size: Any, verbose: Any, steps: int | None, callbacks: Any, whole: bool = False
) -> Any:
    """`Trainer.predict` on arrays or batches."""
    source = _Source(model, x, None, None, batch_size, steps, None, "predict")
    if whole:
        source.batch_size = source.arrays.rows
    program = model._program(source.signature, "predict")
    feed = source.feed(False, 0, program.source.flags.exact_rows)
    callbacks = _callback_list(model, callbacks, verbose, 1, feed.steps)
    told = batch_callbacks(callbacks.callbacks, "predict")
    status = model._trainer.status = Status()
    model.stop_predicting = False
    callbacks.on_predict_begin()
    params, state = program.device_weights()
    parts: list[list[np.ndarray]] = []
    pending: list[tuple[tuple, int]] = []
    count = 1 if told else batches_together(program.source, "predict", feed)
    for number, batch in enumerate(feed.together(count) if count > 1 else feed.epoch(0)):
        for callback in told:
            callback.on_predict_batch_begin(number, {})
        pending.append((program.step.predict(params, state, batch.arrays), batch.rows))
        status.rows, status.step = status.rows + batch.rows, number + 1
        if told or len(pending) >= 32:
            parts += [_real_rows(outputs, rows) for outputs, rows in pending]
            pending = []
        for callback in told:
            callback.on_predict_batch_end(number, {"outputs": program.restore(parts[-1])})
        if model.stop_predicting:
            break
    parts += [_real_rows(outputs, rows) for outputs, rows in pending]
    callbacks.on_predict_end()
    if not parts:
        raise DataError("there is no data: nothing was predicted")
    return program.restore([p[0] if len(p) == 1 else np.concatenate(p) for p in map(list, zip(*parts, strict=True))])


def train_on_batch(model: Any, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> dict[str, Any]:
    """`Trainer.train_on_batch`; the logs."""
    source = _Source(model, x, y, sample_weight, None, None, class_weight, "fit")
    source.batch_size = source.arrays.rows
    program = model._program(source.signature, "train")
    source.check(program.traced)
    optimizer, layout = model.optimizer, program.source.layout
    iteration = int(optimizer._iterations.numpy())
    (batch,) = source.feed(False, 0, program.source.flags.exact_rows).epoch(0)
    params, state = program.store.read()
    seed = model._trainer.status.seed
    params, state, slots, sums = program.step.train(
        params, state, optimizer.variables_to_slots(layout), batch.arrays, batch.valid, batch.row_id,
        step_keys(seed, iteration, 1)[0], np.float32(batch.rows), np.int32(iteration), _rate(optimizer),
    )  # fmt: skip
    program.store.write(params, np.asarray(state))
    optimizer.slots_to_variables(layout, slots, iteration + 1)
    total = np.asarray(sums, np.float64)
    model._trainer.compile.assign(layout, total)
    return plain_logs(program.traced.targets.logs(layout, total))


def _ends_on_nan(callbacks: Any) -> bool:
    """Whether a callback waits for values that are no numbers, so that they may be in the data."""
    given = getattr(callbacks, "callbacks", callbacks)
    return any(isinstance(c, TerminateOnNaN) for c in tree.flatten(given))


class _Source:
    """Rows to train, test or predict on, from arrays or from batches.

    Attributes:
        arrays: all rows; None for batches.
        signature: of the rows.
        program: set by the caller.
        weighs_classes: whether the weights of the rows are their classes'.
    """

    def __init__(self, model, x, y, sample_weight, batch_size, steps, class_weight, caller):
        self.model, self.steps, self.caller = model, steps, caller
        self.program: Any = None
        self.weighs_classes = class_weight is not None
        self.arrays: Arrays | None = None
        self._feed: GeneratorFeed | None = None
        self._looked = False
        if x is None:
            raise DataError(f"there is no data: {caller}() was called without x")
        if is_arrays(x):
            self.batch_size = checks.batch_size_of(batch_size)
            if class_weight is not None:
                sample_weight = class_weights(y, class_weight)
            self.arrays = to_arrays(model, on_host(model, x), y, sample_weight, pieces=True)
            self.signature = self.arrays.signature
            return
        checks.refuse_with_batches(y=y, sample_weight=sample_weight)
        self.batch_size = 0
        self._feed = GeneratorFeed(x, steps, self._prepare(class_weight))
        if caller != "predict":
            self._feed.tell("on_epoch_end")  # as Keras does before the first epoch
        first = self._feed.peek()
        self.signature, self.batch_size = first.signature, first.rows

    @classmethod
    def of_arrays(cls, model: Any, arrays: Arrays, batch_size: Any, steps: int | None) -> _Source:
        """Rows that are arrays already."""
        made = object.__new__(cls)
        made.weighs_classes = False
        made.model, made.steps, made.caller, made.program = model, steps, "fit", None
        made.arrays, made.signature, made._feed = arrays, arrays.signature, None
        made.batch_size = checks.batch_size_of(batch_size)
        return made

    def split_off(self, fraction: float, batch_size: Any, steps: int | None) -> _Source:
        """Takes the last `fraction` of the rows away and gives them, without weights of classes."""
        if self.arrays is None:
            raise ValueError("`validation_split` is only supported for arrays; give `validation_data` instead.")
        self.arrays, held_out = split_validation(self.arrays, fraction)
        if self.weighs_classes:
            held_out = held_out.without_weights()
        return _Source.of_arrays(self.model, held_out, batch_size, steps)

    def feed(self, shuffle: bool, seed: int, exact: bool) -> Any:
        """The batches."""
        if self._feed is not None:
            self._feed.exact, self._feed.shuffle, self._feed.seed = exact, shuffle, seed
            return self._feed
        return ArrayFeed(self.arrays, self.batch_size, shuffle, seed, exact, self.steps)

    def check(self, traced: Any, finite: bool = True) -> None:
        """Values against the model, once; of batches only the first are looked at.

        Args:
            finite: whether all must be finite numbers.
        """
        arrays = self.arrays if self.arrays is not None else self._feed.peek()
        if arrays.signature.y is None and traced.targets.losses:
            raise DataError("the model has a loss, but there are no labels: give y")
        if finite:
            checks.check_finite(arrays.arrays)
        checks.check_weights(arrays.arrays)
        label_checks.check_labels(traced, arrays.arrays)
        label_checks.check_ids(traced, arrays.arrays)

    def _prepare(self, class_weight: Any) -> Callable[[tuple], Arrays]:
        def prepare(parts: tuple) -> Arrays:
            arrays = made(parts)
            if not self._looked:  # inputs get their names when the model is built
                self._looked = True
                if not checks.input_tensors(self.model):
                    build(self.model, arrays.signature)
                    arrays = made(parts) if checks.input_tensors(self.model) else arrays
            return arrays

        def made(parts: tuple) -> Arrays:
            x, y, weight = parts
            if self.caller == "predict":
                y = weight = None
            if class_weight is not None:
                checks.check_weights_of_classes(class_weight, weight)
                weight = class_weights(y, class_weight)
            return to_arrays(self.model, on_host(self.model, x), y, weight)

        return prepare


def _validation(model: Any, data: Any, batch_size: Any, steps: int | None) -> _Source:
    if isinstance(data, (tuple, list)):
        x, y, weight = unpack(tuple(data))
        return _Source(model, x, y, weight, batch_size, steps, None, "fit")
    return _Source(model, data, None, None, batch_size, steps, None, "fit")


def _validator(model: Any, source: _Source, callbacks: CallbackList) -> Callable:
    def validate(params: Any, state: Any) -> tuple[np.ndarray, int]:
        status, store = model._trainer.status, model._trainer.hooks.store

        def weights() -> tuple[Any, Any]:
            return store.read() if store.changed() else (params, state)

        model._trainer.status = Status(epoch=status.epoch, seed=status.seed, end=status.end, report=status.report)
        try:
            sums, rows = _test(model, source, callbacks, weights)
        finally:
            model._trainer.status = status
        callbacks.on_test_end(plain_logs(source.program.traced.targets.logs(source.program.source.layout, sums)))
        return sums, rows

    return validate


def _test(model: Any, source: _Source, callbacks: CallbackList, weights: Callable) -> tuple[np.ndarray, int]:
    """The sums over all rows, batch hooks called. `weights` gives params and state after `on_test_begin`."""
    program = source.program
    targets, layout, status = program.traced.targets, program.source.layout, model._trainer.status
    told = batch_callbacks(callbacks.callbacks, "test")
    each = [c for c in told if c.batch_calls != "latest"]
    next_latest = 0.0

    def begin(batches):
        for number, batch in enumerate(batches):
            for callback in each:
                callback.on_test_batch_begin(number, {})
            yield batch

    def tell(number: int, rows: int, sums: np.ndarray) -> bool:
        nonlocal next_latest
        status.rows, status.step, status.sums = rows, number + 1, sums
        now = time.monotonic()
        due = told if now >= next_latest else each
        if due:
            logs = plain_logs(targets.logs(layout, sums))
            for callback in due:
                callback.on_test_batch_end(number, logs)
        if now >= next_latest:
            next_latest = now + LATEST_S
        return model.stop_evaluating

    callbacks.on_test_begin()
    params, state = weights()
    params = program.step.weights(params)
    feed = source.feed(False, 0, program.source.flags.exact_rows)
    count = 1 if told else batches_together(program.source, "test", feed)
    batches = feed.together(count) if count > 1 else feed.epoch(0)
    sums, rows = sum_batches(program.step, params, state, begin(batches), tell if told else None)
    if not rows:
        raise DataError(
            "there is no data to evaluate: the generator gave no more rows. It can be run through only once; give a list of "
            "batches or an object whose __iter__ starts again."
        )
    return sums, rows


def _callback_list(model, callbacks, verbose, epochs, steps, history=False) -> CallbackList:
    if isinstance(callbacks, CallbackList):
        return callbacks
    return CallbackList(
        callbacks,
        add_history=history,
        add_progbar=verbose != 0,
        model=model,
        verbose=verbose,
        epochs=epochs,
        steps=steps,
    )


def _real_rows(outputs: tuple, rows: int) -> list[np.ndarray]:
    return [np.asarray(output)[:rows] for output in outputs]


def _rate(optimizer: Any) -> np.float32:
    from ..callbacks.learning_rate import rate_of

    return np.float32(rate_of(optimizer))
