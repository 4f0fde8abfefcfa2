"""Compiling: the part of a model that `compile` sets, what a model remembers between calls, and its traced steps."""

from __future__ import annotations

import warnings
from typing import Any

from . import checks
from .building import build
from .compiled import Compiled
from .program import Program
from .status import Status
from .steps import Steps, overrides_steps
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


class Compiling(Steps):
    """The part of `Trainer` that compiles: arguments and state of training, and the programs made of them."""

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
        if (
            type(self).compile is not Compiling.compile
            and type(self).compile_from_config is Compiling.compile_from_config
        ):
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
