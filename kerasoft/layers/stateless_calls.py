"""Calls without side effects, and the rarer members that Keras's layers have."""

from __future__ import annotations

from typing import Any

from ..rematerialization import rematerialized
from ..stateless import StatelessScope
from .state import State


class Stateless(State):
    """What a layer can do with variables given from outside: `stateless_call`, and calls by other names."""

    def stateless_call(
        self,
        trainable_variables: Any,
        non_trainable_variables: Any,
        *args: Any,
        return_losses: bool = False,
        **kwargs: Any,
    ) -> tuple:
        """Calls the layer with these values of its variables; nothing is kept.

        A pure function: it may be called under ``jax.jit`` and ``jax.grad``.

        Args:
            trainable_variables, non_trainable_variables: values in the order of the properties of these names.
            args, kwargs: as for a call.

        Returns:
            ``(outputs, non_trainable_variables)``, the latter with the values after the call; with `return_losses`
            also the list of losses of the call and of the regularizers.

        Raises:
            ValueError: the layer is not built, or another number of values.

        >>> import kerasoft as ks, jax
        >>> layer = ks.layers.Dense(1, kernel_initializer="ones")
        >>> layer.build((None, 2))
        >>> loss = lambda weights, x: layer.stateless_call(weights, [], x)[0].sum()
        >>> values = [v.numpy() for v in layer.trainable_variables]
        >>> jax.grad(loss)(values, jax.numpy.array([[2.0, 3.0]]))[0].tolist()
        [[2.0], [3.0]]
        """
        if not self.built:
            raise ValueError(
                f"To call stateless_call, {type(self).__name__} must be built (i.e. its variables must have been already "
                "created). You can build it by calling it on some data."
            )
        mapping = []
        for name, values in (
            ("trainable_variables", trainable_variables),
            ("non_trainable_variables", non_trainable_variables),
        ):
            mine = getattr(self, name)
            if len(mine) != len(values):
                raise ValueError(
                    f"Argument `{name}` must be a list of tensors corresponding 1:1 to {type(self).__name__}().{name}. "
                    f"Received list with length {len(values)}, but expected {len(mine)} variables."
                )
            mapping += [(v, x.value if hasattr(x, "assign") else x) for v, x in zip(mine, values, strict=True)]
        with StatelessScope(mapping, collect_losses=return_losses) as scope:
            outputs = self(*args, **kwargs)  # type: ignore[operator]
            state = [scope.value_of(v) for v in self.non_trainable_variables]
            if not return_losses:
                return outputs, state
            penalties = [v.regularizer(v) for v in self.trainable_weights if v.regularizer is not None]
            return outputs, state, [*scope.losses, *penalties]

    def symbolic_call(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs for symbolic inputs, without a record of the call."""
        return self.compute_output_spec(*args, **kwargs)  # type: ignore[attr-defined]

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """`layer_call`, whose results the gradient computes again if the layer was made in a `RematScope` that says so."""
        mode = self._remat_mode  # type: ignore[attr-defined]
        return layer_call if mode is None else rematerialized(self, layer_call, mode)

    def add_variable(
        self,
        shape: Any,
        initializer: Any,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        name: str | None = None,
    ) -> Any:
        """A new weight; the same as `add_weight`."""
        return self.add_weight(  # type: ignore[attr-defined]
            shape, initializer, dtype, trainable, autocast, regularizer, constraint, name=name
        )

    def _build_at_init(self) -> None:
        """Marks a layer without weights as built, unless a subclass has a `build` of its own."""
        if self._has_default_build:  # type: ignore[attr-defined]
            self.built = True

    def add_metric(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            "Layer `add_metric()` method is deprecated. Add your metric in `Model.compile(metrics=[...])`."
        )

    @property
    def metrics(self) -> list:
        """The metrics of this layer and of those in it."""
        return [m for layer in self._flatten_layers() for m in layer._metrics]

    @property
    def metrics_variables(self) -> list:
        """The states of `metrics`."""
        return [v for metric in self.metrics for v in metric.variables]

    @property
    def call_signature_parameters(self) -> list[str]:
        """The names of `call`'s parameters."""
        import inspect

        return list(inspect.signature(self.call).parameters)  # type: ignore[attr-defined]
