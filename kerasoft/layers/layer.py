"""Layer: the base of all layers and models. State, calls, masks, losses, configuration."""

from __future__ import annotations

from typing import Any

from .. import dtypes, naming, tree
from ..dtype_policies import DTypePolicy
from ..errors import ConfigError, UnknownClassError, UnsafeFileError
from ..scope import EagerScope, current_scope, enter_autocast, get_mask, leave_autocast
from ..tensors import Call, KerasTensor, Operation, any_symbolic, infer, known_shape
from .building import Building, complete_build
from .call_arguments import CallArguments, check_positional, shapes_for_build, signature_of
from .errors_in_calls import close_arguments, locate, located_constructor
from .input_spec import check_inputs
from .masks import Masks
from .precision import Precision
from .shapes import is_shape, specs
from .stateless_calls import Stateless


class Layer(Building, Masks, Stateless, Precision, Operation):
    """A function with weights.

    A layer of your own overrides `__init__` (settings), `build` (weights, when the input shape is known) and `call`
    (the formula, in `kerasoft.ops`).

    Args:
        activity_regularizer: penalises the output; divided by the batch size.
        trainable: whether its weights are trained.
        dtype: in what it keeps its weights and computes: a dtype, or a policy such as ``"mixed_bfloat16"``.
        autocast: whether float inputs are cast to the compute dtype.
        name: unique in a model; made of the class name by default.

    >>> import kerasoft as ks
    >>> class Scale(ks.Layer):
    ...     def build(self, input_shape):
    ...         self.gain = self.add_weight((input_shape[-1],), lambda shape, dtype: 2.0 + 0.0 * ks.ops.ones(shape))
    ...     def call(self, x):
    ...         return x * self.gain
    >>> layer = Scale()
    >>> layer(ks.Input((3,))).shape, layer.weights[0].path
    ((None, 3), 'scale/variable')
    >>> layer([[1.0, 2.0, 3.0]]).tolist()
    [[2.0, 4.0, 6.0]]
    """

    _allow_non_tensor_positional_args = False
    _stateless = False  # True: there is nothing to build, so that the layer is built from the start

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ):
        shape = kwargs.pop("input_shape", None)
        dim = kwargs.pop("input_dim", None)
        if kwargs:
            raise ValueError(
                f"Unrecognized keyword arguments passed to {type(self).__name__}: {kwargs}{close_arguments(self, kwargs)}"
            )
        Stateless.__init__(self)
        Operation.__init__(self, name=name)
        if activity_regularizer is not None:
            from .. import regularizers

            activity_regularizer = regularizers.get(activity_regularizer)
        self.activity_regularizer = activity_regularizer
        self._dtype_policy = dtypes.policy(dtype)
        self.autocast = autocast
        self.built = self._stateless and self._has_default_build
        self.supports_masking = type(self).compute_mask is not Layer.compute_mask
        self.input_spec: Any = None
        if not isinstance(trainable, bool):
            raise ValueError(
                f"Expected `trainable` to be a boolean. Received: trainable={trainable} (of type {type(trainable)})"
            )
        self._trainable = trainable
        self._build_shapes: dict[str, Any] | None = None
        self._building = False
        self._is_quantized = False
        self._losses: list[Any] = []
        self._path: str | None = None
        self._input_shape_arg = (dim,) if dim is not None else shape
        self._ready = True

    def __init_subclass__(cls, manages_build: bool = False, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and cls.__module__.startswith("kerasoft."):
            cls.__init__ = located_constructor(cls.__init__)  # type: ignore[method-assign]
        if "build" in vars(cls) and not manages_build:
            cls.build = complete_build(cls.build)  # type: ignore[method-assign]

    # --- calling ---

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"Layer {type(self).__name__} does not have a `call` method implemented.")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not getattr(self, "_ready", False):
            raise RuntimeError(
                f"In layer '{type(self).__name__}', you forgot to call `super().__init__()` as the first statement in "
                "the `__init__()` method. Go add it!"
            )
        scope = current_scope()
        if len(args) > 1 and (scope is None or not scope.tracing) and not self._allow_non_tensor_positional_args:
            check_positional(args)
        if any_symbolic(args, kwargs):
            return self._symbolic_call(args, kwargs)
        args, kwargs = self._as_tensors(args), self._as_tensors(kwargs)
        if scope is not None and (scope.tracing or not scope.counts_rows):
            return self._run(*args, **kwargs)
        first = next((x for x in tree.flatten((args, kwargs)) if hasattr(x, "dtype") and len(x.shape)), None)
        rows = 0 if first is None else int(first.shape[0])
        if scope is not None:
            scope.count_rows(rows)
            scope.counts_rows = False  # layers inside see the rows of this call
            try:
                return self._run(*args, **kwargs)
            finally:
                scope.counts_rows = True
        with EagerScope(batch=rows):
            for layer in self._flatten_layers():
                if layer._losses:
                    layer._losses = []
            return self._run(*args, **kwargs)

    def _symbolic_call(self, args: tuple, kwargs: dict) -> Any:
        try:
            outputs = self._quick_call(args[0]) if len(args) == 1 and not kwargs else None
            quick = outputs is not None
            if not quick:
                if type(self).compute_output_spec is not Layer.compute_output_spec or self._tells_shapes:
                    outputs = self._spec_call(args, kwargs)
                else:
                    outputs = self._infer(args, kwargs)
            call = Call(self, args, kwargs, outputs)
            if not quick:
                self._note_masks(call)
            return outputs
        except Exception as error:
            locate(error, self, args, kwargs)
            raise

    @property
    def _tells_shapes(self) -> bool:
        """Whether a user's class has a `compute_output_shape` of its own."""
        return not type(self).compute_output_shape.__module__.startswith("kerasoft.")

    def quick_shape(self, shape: tuple) -> tuple | None:
        """The output's shape for one input of this shape, where it follows at once; None: a trace tells.

        For layers of which models have many. The output has the compute dtype.
        """
        return None

    def _quick_call(self, x: Any) -> Any:
        """The result of a symbolic call on one float tensor without a mask, if `quick_shape` knows it."""
        unknown = type(self).quick_shape is Layer.quick_shape or self.activity_regularizer is not None
        if unknown or not isinstance(x, KerasTensor) or x._keras_mask is not None or x.dtype not in dtypes.FLOATS:
            return None
        mine = type(self)
        traced = mine.compute_output_spec is Layer.compute_output_spec and not self._tells_shapes
        if not (traced and mine.call.__module__.startswith("kerasoft.")):
            return None  # a user's own formula
        check_inputs(self.input_spec, x, self.name)
        if not self.built:
            self._build_once(CallArguments(signature_of(type(self)), (x,), {}))
        shape = self.quick_shape(x.shape)
        return None if shape is None else KerasTensor(shape, self.compute_dtype)

    def _infer(self, args: tuple, kwargs: dict) -> Any:
        """KerasTensors like the outputs, by a trace."""
        return infer(self._run, args, kwargs)

    def _spec_call(self, args: tuple, kwargs: dict) -> Any:
        """A symbolic call of a layer with a `compute_output_spec` of its own."""
        arguments = CallArguments(signature_of(type(self)), args, kwargs)
        check_inputs(self.input_spec, arguments.first, self.name)
        self._build_once(arguments)
        outputs = self.compute_output_spec(*args, **kwargs)
        previous = tree.map_structure(get_mask, arguments.first)
        if any(m is not None for m in tree.flatten(previous)):
            self._pass_masks(arguments.first, outputs, previous)
        return outputs

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """The call on nodes or arrays, inside a scope."""
        try:
            return self._run_in(current_scope(), self._cast_inputs(args), self._cast_inputs(kwargs))
        except Exception as error:
            locate(error, self, args, kwargs)
            raise

    def _run_in(self, scope: Any, args: tuple, kwargs: dict) -> Any:
        signature = signature_of(type(self))
        training = kwargs.get("training")
        if not signature.takes_training and not signature.takes_any and "training" in kwargs:
            kwargs = {k: v for k, v in kwargs.items() if k != "training"}
        arguments = CallArguments(signature, args, kwargs)
        if self.input_spec:
            check_inputs(self.input_spec, arguments.first, self.name)
        if not self.built:
            self._build_once(arguments)
        training = arguments.by_name.get("training", training)
        if training is None:
            training = scope.training
        if signature.takes_training:
            if training is None:
                training = signature.default("training")
            by_position = "training" in arguments.by_name and "training" not in kwargs
            if training is not None and not by_position:
                kwargs = {**kwargs, "training": training}
        kwargs, previous_mask = self._with_masks(signature, arguments, kwargs)
        outer, scope.training = scope.training, training
        run = self.call if self.quantization_mode is None else self.quantized_call
        if self._remat_mode is not None:
            run = self.rematerialized_call(run, *args, **kwargs)
        tokens = naming.enter(self._find_path()), enter_autocast(self._cast_dtype())
        try:
            if scope.tracing:
                with _labelled(self):
                    outputs = run(*args, **kwargs)
            else:
                outputs = run(*args, **kwargs)
        finally:
            naming.leave(tokens[0])
            leave_autocast(tokens[1])
            scope.training = outer
        if not self.built:
            self.built = True
        if self.activity_regularizer is not None:
            self._regularize_activity(scope, outputs)
        self._pass_masks(arguments.first, outputs, previous_mask)
        return outputs

    # --- losses ---

    def add_loss(self, loss: Any) -> None:
        """Adds a scalar computed in `call` to the model's loss."""
        scope = current_scope()
        for value in tree.flatten(loss):
            if scope is None or not (scope.tracing or scope.holds_values):
                self._losses.append(value)
            else:
                scope.add_loss(value)

    def _regularize_activity(self, scope: Any, outputs: Any) -> None:
        if self.activity_regularizer is None:
            return
        from .. import ops

        for x in tree.flatten(outputs):
            if scope.tracing and scope.valid is not None and len(x.shape):
                real = ops.reshape(scope.valid, (x.shape[0],) + (1,) * (len(x.shape) - 1))
                x = ops.where(ops.greater(real, 0), x, ops.zeros_like(x))
            loss = self.activity_regularizer(x)
            loss = ops.divide(loss, scope.row_count(x)) if len(x.shape) else loss
            if scope.tracing or scope.holds_values:
                scope.add_share(loss)
            else:
                self._losses.append(loss)

    @property
    def losses(self) -> list[Any]:
        """What `add_loss` and activity regularizers gave in the last eager call, then the weights' penalties."""
        found = [*self._losses]
        for layer in self._flatten_layers()[1:]:
            found.extend(layer._losses)
        return found + [v.regularizer(v) for v in self.trainable_weights if v.regularizer is not None]

    # --- shapes ---

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """KerasTensors like the outputs for KerasTensor inputs."""
        if not self._tells_shapes:
            return self._infer(args, kwargs)
        arguments = CallArguments(signature_of(type(self)), args, kwargs)
        shapes = self.compute_output_shape(**shapes_for_build(arguments, self.compute_output_shape, known_shape) or {})
        return specs(shapes, self.compute_dtype)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """The output shape for an input shape (or one per tensor argument)."""
        if type(self).call is Layer.call:
            raise NotImplementedError(
                f"Layer {type(self).__name__} does not have a `compute_output_shape` method implemented. Should implement "
                "`def compute_output_shape(self, input_shape)`."
            )
        shapes = [*args, *kwargs.values()]

        def symbolic(shape: Any) -> Any:
            if shape is None or is_shape(shape):
                return None if shape is None else KerasTensor(shape, self._shape_dtype())
            if isinstance(shape, dict):
                return {k: symbolic(v) for k, v in shape.items()}
            return [symbolic(s) for s in shape]

        outputs = self.compute_output_spec(*[symbolic(s) for s in shapes])
        return tree.map_structure(lambda x: x.shape, outputs)

    def _shape_dtype(self) -> str:
        return self.input_dtype

    # --- configuration ---

    def get_config(self) -> dict[str, Any]:
        """What is needed to make the layer again: name, trainable, dtype, and the constructor's arguments.

        A subclass that overrides it adds its own arguments to ``super().get_config()``; one that does not has its
        constructor's arguments captured.
        """
        config: dict[str, Any] = {
            "name": self.name,
            "trainable": self._trainable,
            "dtype": self._saved_policy(),
        }
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = self.activity_regularizer
        if type(self).get_config is Layer.get_config:
            skipped = {"kwargs", "args", "name", "trainable", "dtype", "activity_regularizer"}
            config.update({k: v for k, v in self._captured.items() if k not in skipped})
        from ..saving.serialization import serialize_keras_object

        return {key: serialize_keras_object(value) for key, value in config.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The layer that gave this config."""
        from ..saving.serialization import deserialize_keras_object

        if cls.get_config is Layer.get_config:
            config = {key: deserialize_keras_object(value) for key, value in config.items()}
        elif isinstance(config.get("dtype"), dict):  # constructors see a policy, or its name if it is a plain one
            found = deserialize_keras_object(config["dtype"])
            plain = type(found) is DTypePolicy and found.quantization_mode is None
            config = {**config, "dtype": found.name if plain else found}
        try:
            return cls(**config)
        except (ConfigError, UnknownClassError, UnsafeFileError):
            raise
        except Exception as error:
            raise ConfigError(
                f"Error when deserializing class '{cls.__name__}' using config={config}.\n\nException encountered: {error}\n"
                f"{cls.__name__} could not be made from its config. Each argument of its constructor must be in what "
                "`get_config()` returns. It could not be deserialized properly: objects (layers, models, ...) returned by "
                "`get_config()` must be deserialized in `from_config()`."
            ) from error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


def _labelled(layer: Layer) -> Any:
    """Nodes made inside carry the layer's name."""
    from ..compiler.ir import source

    return source(layer._path or layer.name)
