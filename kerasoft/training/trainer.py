"""Trainer: the part of a model that compiles, fits, evaluates and predicts."""

from __future__ import annotations

import time
import warnings
from typing import Any

from ..data.kinds import is_distributed
from . import checks
from .building import build
from .compiled import Compiled
from .program import Program
from .status import Status
from .steps import Steps, overrides_steps, trains_by_steps
from .targets import CompileArguments

_ARGUMENTS = (
    "optimizer", "loss", "loss_weights", "metrics", "weighted_metrics", "run_eagerly", "steps_per_execution",
    "jit_compile",
)  # fmt: skip


class _State:
    """What a trainer keeps, out of sight of the layer's tracking of attributes."""

    def __init__(self) -> None:
        self.compiled = False
        self.arguments: dict[str, Any] = {}
        self.optimizer: Any = None
        self.given_optimizer: Any = None  # as `compile` was given it, without a loss scale around it
        self.stop_training = self.stop_evaluating = self.stop_predicting = False
        self.trainable_when_compiled: tuple = ()
        self.programs: dict[Any, Any] = {}
        self.status = Status()
        self.hooks: Any = None
        self.resume: dict[str, Any] | None = None
        self.profile: Any = None
        self.history: Any = None
        self.compile: Any = None  # a `Compiled`
        self.functions: dict[str, Any] = {}
        self.losses_override: list | None = None
        self.events: list = []


class Trainer(Steps):
    """What `Model` inherits; see `compile` and `fit`.

    Attributes:
        optimizer, loss: as compiled.
        compiled: whether `compile` was called.
        history: the `History` of the last `fit`.
        last_fit_profile: where the last fit's wall time went, a `kerasoft.runtime.loop.Profile`.
        stop_training: set it to True in a callback to end the training.
    """

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def _trainer(self) -> _State:
        found = self.__dict__.get("_trainer_state")
        if found is None:
            found = _State()
            object.__setattr__(self, "_trainer_state", found)
        return found

    compiled = property(lambda self: self._trainer.compiled)
    last_fit_profile = property(lambda self: self._trainer.profile)
    last_fit_events = property(lambda self: list(self._trainer.events))
    loss = property(lambda self: self._trainer.arguments.get("loss"))
    _status = property(lambda self: self._trainer.status)

    @property
    def optimizer(self) -> Any:
        return self._trainer.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Any) -> None:
        self._trainer.optimizer = self._trainer.given_optimizer = optimizer
        self._trainer.programs.clear()

    @property
    def history(self) -> Any:
        return self._trainer.history

    @history.setter
    def history(self, history: Any) -> None:
        self._trainer.history = history

    @property
    def stop_training(self) -> bool:
        return self._trainer.stop_training

    @stop_training.setter
    def stop_training(self, stop: bool) -> None:
        self._trainer.stop_training = stop

    @property
    def stop_evaluating(self) -> bool:
        return self._trainer.stop_evaluating

    @stop_evaluating.setter
    def stop_evaluating(self, stop: bool) -> None:
        self._trainer.stop_evaluating = stop

    @property
    def stop_predicting(self) -> bool:
        return self._trainer.stop_predicting

    @stop_predicting.setter
    def stop_predicting(self, stop: bool) -> None:
        self._trainer.stop_predicting = stop

    @property
    def _resume(self) -> dict[str, Any] | None:
        return self._trainer.resume

    @_resume.setter
    def _resume(self, resume: dict[str, Any] | None) -> None:
        self._trainer.resume = resume

    steps_per_execution = property(lambda self: self._trainer.arguments.get("steps_per_execution", 1))

    @property
    def run_eagerly(self) -> bool:
        """Whether steps of the model's own run without `jax.jit`."""
        return self._trainer.arguments.get("run_eagerly", False)

    @run_eagerly.setter
    def run_eagerly(self, value: bool) -> None:
        self._trainer.arguments["run_eagerly"] = value
        self._trainer.functions.clear()

    @property
    def jit_compile(self) -> bool:
        """Whether steps are compiled, as Keras would: "auto" is True unless `run_eagerly`."""
        return self._trainer.arguments.get("jit_compile", True)

    @jit_compile.setter
    def jit_compile(self, value: bool) -> None:
        self._trainer.arguments["jit_compile"] = value

    def _synchronise(self) -> None:
        """Brings the variables up to date while a fit is under way."""
        if self._trainer.hooks is not None:
            self._trainer.hooks.synchronise()

    def _metric_directions(self) -> dict[str, str]:
        """For each metric in the logs whether less ("min") or more ("max") of it is better, where that is known."""
        targets = self._trainer.compile.targets if self._trainer.compile is not None else None
        words = {"up": "max", "down": "min"}
        found: dict[str, str] = {}
        for term in targets.metrics if targets is not None else ():
            direction = words.get(getattr(term.metric, "_direction", None))
            if direction:
                found[term.name] = direction
                found.setdefault(term.metric.name, direction)
        for term in targets.losses if targets is not None else ():
            found.setdefault(term.name, "min")
        return found

    # --- compile ------------------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
    ):
        """Says how the model is trained and measured; forgets the state of a former optimizer.

        Args:
            optimizer: a name, a config or a `kerasoft.optimizers.Optimizer`.
            loss: a name, a `Loss` or a function; for several outputs a list, or a dict by output name.
            loss_weights: factors of the losses, in the same form; a float for a single output.
            metrics: names, `Metric`s or functions; for several outputs a list of lists or a dict by output name. They
                never see sample weights.
            weighted_metrics: the same, with sample weights.
            run_eagerly, jit_compile: accepted; the step is always compiled, and gives the same numbers.
            steps_per_execution: accepted; batch hooks are called after each step all the same.
            auto_scale_loss: whether the optimizer of a model with the policy "mixed_float16" is put into a
                `LossScaleOptimizer`.

        Raises:
            ValueError: an unknown name; lists close names.

        >>> import kerasoft as ks
        >>> model = ks.Sequential([ks.Input((3,)), ks.layers.Dense(1)])
        >>> model.compile("adam", loss="mse", metrics=["mae"])
        """
        from .. import losses, optimizers
        from .. import metrics as metric_classes

        alike = ("crossentropy", "ce")
        checks.check_names(optimizer, optimizers, "optimizer")
        checks.check_names(loss, losses, "loss", alike)
        for given in (metrics, weighted_metrics):
            checks.check_names(given, metric_classes, "metric", ("accuracy", "acc", *alike))
        if jit_compile and run_eagerly and jit_compile != "auto":
            warnings.warn(
                "If `run_eagerly` is True, then `jit_compile` cannot also be True. Disabling `jit_compile`.",
                stacklevel=2,
            )
        jit_compile = not run_eagerly if jit_compile == "auto" else bool(jit_compile and not run_eagerly)
        state = self._trainer
        values = (
            optimizer,
            loss,
            loss_weights,
            metrics,
            weighted_metrics,
            run_eagerly,
            steps_per_execution,
            jit_compile,
        )
        state.arguments = dict(zip(_ARGUMENTS, values, strict=True))
        state.optimizer = state.given_optimizer = optimizers.get(optimizer)
        scales = self.dtype_policy.name == "mixed_float16" and not isinstance(
            state.optimizer, optimizers.LossScaleOptimizer
        )
        if auto_scale_loss and state.optimizer is not None and scales:
            state.optimizer = optimizers.LossScaleOptimizer(state.optimizer, name="loss_scale_optimizer")
        state.programs.clear()
        state.functions.clear()
        state.compile = Compiled(self, self._compile_arguments())
        state.trainable_when_compiled = self._trainable_state()
        state.stop_training = False
        state.compiled = True

    def get_compile_config(self) -> dict:
        """The arguments of `compile` as a config, empty if it was not called."""
        if not self.compiled:
            return {}
        from ..saving.serialization import serialize_keras_object

        given = {**self._trainer.arguments, "optimizer": self._trainer.given_optimizer}
        return {name: serialize_keras_object(value) for name, value in given.items()}

    def compile_from_config(self, config: dict) -> None:
        """Compiles as `get_compile_config` says, and makes the optimizer's variables."""
        if type(self).compile is not Trainer.compile and type(self).compile_from_config is Trainer.compile_from_config:
            warnings.warn(
                "`compile()` was not called as part of model loading because the model's `compile()` method is custom. All "
                "subclassed Models that have `compile()` overridden should also override `get_compile_config()` and "
                "`compile_from_config(config)`. Alternatively, you can call `compile()` manually after loading.",
                stacklevel=2,
            )
            return
        from ..saving.serialization import deserialize_keras_object

        self.compile(**{name: deserialize_keras_object(value) for name, value in config.items()})
        if getattr(self, "built", False):
            self._build_optimizer()

    def _build_optimizer(self) -> None:
        if self.optimizer is not None:
            self.optimizer.build(list(self.trainable_weights))

    def _compile_arguments(self) -> CompileArguments:
        given = self._trainer.arguments
        return CompileArguments(*(given.get(n) for n in ("loss", "loss_weights", "metrics", "weighted_metrics")))

    def _trainable_state(self) -> tuple:
        return tuple((id(layer), layer.trainable) for layer in self._flatten_layers())

    # --- programs -----------------------------------------------------------------------------------------------------

    def _program(self, signature: Any, *parts: str) -> Program:
        """The traced and compiled steps for arrays of this signature, made at first need.

        Kept until `compile`, a change of `trainable` or of the number of weights.
        """
        state = self._trainer
        build(self, signature)
        trainable = tuple(id(v) for v in self.trainable_weights)
        key = (signature, parts, trainable, len(self.weights))
        found = state.programs.get(key)
        if found is None:
            from .trace import trace_model

            with_targets = parts != ("predict",)
            compiled = state.compile if with_targets else None
            optimizer = state.optimizer if "train" in parts else None
            if with_targets and overrides_steps(self):
                from .trace_steps import trace_own_steps

                traced = trace_own_steps(self, signature, parts, optimizer)
            else:
                traced = trace_model(self, signature, parts, compiled, optimizer)
            key = (signature, parts, tuple(id(v) for v in self.trainable_weights), len(self.weights))
            found = state.programs[key] = Program(traced)
        return found

    def _warn_if_trainable_changed(self) -> None:
        before, now = dict(self._trainer.trainable_when_compiled), dict(self._trainable_state())
        layers = {id(layer): layer for layer in self._flatten_layers()}
        changed = [layers[key].name for key in now if key in before and now[key] != before[key]]
        if changed:
            warnings.warn(
                "A layer's `trainable` state has changed since the model was compiled. Please recompile your model (e.g. "
                f"`model.compile(...)`) before calling `fit()` so the change takes effect. Changed layers: {changed}",
                stacklevel=3,
            )
            self._trainer.trainable_when_compiled = tuple(now.items())

    # --- fit ----------------------------------------------------------------------------------------------------------

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
        *,
        strategy=None,
        feature_cols=None,
        label_cols=None,
        seed=None,
    ):
        """Trains the model.

        Args:
            x: NumPy arrays (one, a list, a dict by input name); a generator or iterable of batches ``(x, y)`` or
                ``(x, y, sample_weight)``; an RDD of rows; or a Spark DataFrame.
            y: labels, in the form of the outputs; None where x holds them.
            batch_size: rows of a step, over all workers together; 32 by default.
            epochs: the final epoch; those from `initial_epoch` on are made.
            verbose: 0 silent, 1 a live line, 2 one line an epoch; "auto" is 1.
            callbacks: `kerasoft.callbacks.Callback`s.
            validation_split: fraction of the rows, the last ones before shuffling, that are validated on instead.
            validation_data: ``(x, y)``, ``(x, y, sample_weight)``, a generator, an RDD or a DataFrame.
            shuffle: a new row order each epoch.
            class_weight: factor by class number, as if given as sample weights.
            sample_weight: factors of the rows' losses, (rows,) or (rows, steps); lists or dicts for several outputs.
            initial_epoch: first epoch.
            steps_per_epoch: ends an epoch early; needed for endless generators.
            validation_steps, validation_batch_size: the same for validation.
            validation_freq: validate every so many epochs, or after the 1-based epochs listed.
            strategy: how an RDD or DataFrame is trained on, `kerasoft.runtime.AllReduce` by default.
            feature_cols, label_cols: columns of a DataFrame (or keys of dict rows).
            seed: of the row order and all random masks; drawn from NumPy's global generator when None.

        Returns:
            a `History`.

        Raises:
            NotCompiledError: `compile` was not called.
            DataError: what is wrong with the data, before the first step.

        >>> import numpy as np, kerasoft as ks
        >>> model = ks.Sequential([ks.Input((1,)), ks.layers.Dense(1)])
        >>> model.compile(ks.optimizers.SGD(0.5), "mse")
        >>> x = np.array([[-1.0], [0.0], [1.0]])
        >>> history = model.fit(x, 2 * x + 1, epochs=200, verbose=0)
        >>> np.round(model.predict([[3.0]], verbose=0), 2).tolist()
        [[7.0]]
        """
        begin = time.perf_counter()
        checks.require_compiled(self)
        checks.check_epochs(epochs, initial_epoch)
        checks.check_weights_of_classes(class_weight, sample_weight)
        self._warn_if_trainable_changed()
        epochs, steps_per_epoch = checks.limited_epochs(epochs), checks.limited_steps(steps_per_epoch)
        given = dict(
            x=x, y=y, batch_size=batch_size, epochs=epochs, verbose=verbose, callbacks=callbacks,
            validation_data=validation_data, shuffle=shuffle, class_weight=class_weight, sample_weight=sample_weight,
            initial_epoch=initial_epoch, steps_per_epoch=steps_per_epoch, validation_steps=validation_steps,
            validation_batch_size=validation_batch_size, validation_freq=validation_freq, seed=seed,
        )  # fmt: skip
        checks.check_strategy(strategy, x, "train")
        if is_distributed(x):
            from .spark_fit import fit_spark

            checks.refuse_for_spark(validation_split=validation_split, y=y, class_weight=class_weight)
            return fit_spark(self, strategy=strategy, feature_cols=feature_cols, label_cols=label_cols, **given)
        if trains_by_steps(self):
            from .own_steps import fit_with_own_steps

            return fit_with_own_steps(self, begin=begin, validation_split=validation_split, **given)
        from .local_fit import fit_local

        return fit_local(self, begin=begin, validation_split=validation_split, **given)

    # --- evaluate and predict -----------------------------------------------------------------------------------------

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        *,
        strategy=None,
        feature_cols=None,
        label_cols=None,
    ):
        """Loss and metrics over all rows: exact weighted means, whatever the batch size.

        Args:
            x, y, sample_weight, batch_size, verbose, callbacks, feature_cols, label_cols: as for `fit`.
            strategy: a `kerasoft.runtime.Parallel` that cuts the model among executors; None: each holds all of it.
            steps: batches at most.
            return_dict: a dict by name; else a list ``[loss, metrics...]``, or the loss alone if there are no metrics.

        Raises:
            NotCompiledError, DataError: as `fit`.
        """
        checks.require_compiled(self)
        checks.check_strategy(strategy, x, "score")
        steps = checks.limited_steps(steps)
        if is_distributed(x) and strategy is not None:
            from .spark_cut import evaluate_with

            logs = evaluate_with(strategy, self, x, batch_size, feature_cols, label_cols)
        elif is_distributed(x):
            from .spark_fit import evaluate_spark

            logs = evaluate_spark(self, x, batch_size, feature_cols, label_cols)
        elif overrides_steps(self):
            from .own_steps import evaluate_with_own_steps

            logs = evaluate_with_own_steps(self, x, y, batch_size, verbose, sample_weight, steps, callbacks, False)
        else:
            from .local_fit import evaluate_local

            logs = evaluate_local(self, x, y, batch_size, verbose, sample_weight, steps, callbacks)
        return logs if return_dict else self._ordered(logs)

    def predict(
        self,
        x,
        batch_size=None,
        verbose="auto",
        steps=None,
        callbacks=None,
        *,
        strategy=None,
        feature_cols=None,
        **options,
    ):
        """The model's outputs for all rows.

        Args:
            x, batch_size, verbose, callbacks: as for `fit`. An RDD gives a lazy RDD of one prediction a row in the same
                order and partitions; a DataFrame gives itself with one column more.
            steps: batches at most.
            strategy: as for `evaluate`.
            feature_cols: columns of a DataFrame.
            **options: `output_col`, the name of a DataFrame's new column.

        Returns:
            arrays in the structure of the model's outputs.
        """
        checks.check_strategy(strategy, x, "score")
        steps = checks.limited_steps(steps)
        if is_distributed(x):
            from .spark_fit import predict_spark

            checks.refuse_own_prediction(self)
            if strategy is not None:
                from .spark_cut import predict_with

                return predict_with(strategy, self, x, batch_size, feature_cols, **options)
            return predict_spark(self, x, batch_size, feature_cols, **options)
        if options:
            raise TypeError(f"predict() got an unexpected keyword argument {next(iter(options))!r}")
        if type(self).predict_step is not Steps.predict_step:
            from .own_steps import predict_with_own_steps

            return predict_with_own_steps(self, x, batch_size, verbose, steps, callbacks, False)
        from .local_fit import predict_local

        return predict_local(self, x, batch_size, verbose, steps, callbacks)

    def _ordered(self, logs):
        """The values in the order of the metrics, then the others by name; one value comes alone, several as a list."""
        names: list[str] = []
        for metric in self.metrics:
            names += [m.name for m in metric.metrics] if metric.name == "compile_metrics" else [metric.name]
        values = [logs[name] for name in names if name in logs]
        values += [logs[name] for name in sorted(set(logs) - set(names))]
        return values[0] if len(values) == 1 else values

    # --- single batches -----------------------------------------------------------------------------------------------

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """One step on one batch. Returns its loss and metrics like `evaluate`.

        Raises:
            NotCompiledError, DataError: as `fit`.
        """
        from .local_fit import train_on_batch

        checks.require_compiled(self)
        checks.check_weights_of_classes(class_weight, sample_weight)
        if trains_by_steps(self):
            from .own_steps import train_on_batch_with_own_steps

            logs = train_on_batch_with_own_steps(self, x, y, sample_weight, class_weight)
        else:
            logs = train_on_batch(self, x, y, sample_weight, class_weight)
        return logs if return_dict else self._ordered(logs)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Loss and metrics of one batch, without training."""
        from .local_fit import evaluate_local

        checks.require_compiled(self)
        if overrides_steps(self):
            from .own_steps import evaluate_with_own_steps

            logs = evaluate_with_own_steps(self, x, y, None, 0, sample_weight, None, None, True)
        else:
            logs = evaluate_local(self, x, y, None, 0, sample_weight, None, None, whole=True)
        return logs if return_dict else self._ordered(logs)

    def predict_on_batch(self, x):
        """The outputs for one batch."""
        from .local_fit import predict_local

        if type(self).predict_step is not Steps.predict_step:
            from .own_steps import predict_with_own_steps

            return predict_with_own_steps(self, x, None, 0, None, None, True)
        return predict_local(self, x, None, 0, None, None, whole=True)
