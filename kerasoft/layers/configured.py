"""What the built-in layers share: constructor arguments that become attributes and, by name, config entries again."""

from __future__ import annotations

import inspect
from typing import Any

from .. import activations, config, constraints, initializers, regularizers
from .layer import Layer


class _Settings:
    """`quantization_config`: an object, or the config of one in a file."""

    @staticmethod
    def get(value: Any) -> Any:
        from ..saving.serialization import deserialize_keras_object

        return deserialize_keras_object(value) if isinstance(value, dict) else value

    @staticmethod
    def serialize(value: Any) -> Any:
        from ..saving.serialization import serialize_keras_object

        return serialize_keras_object(value)


_KINDS = {
    "config": _Settings,
    "initializer": initializers,
    "regularizer": regularizers,
    "constraint": constraints,
    "activation": activations,
}


class Configured(Layer):
    """A layer that says once which arguments it has.

    A subclass that has another default for an argument of its base says so in `DEFAULTS`; it is what
    ``inspect.signature`` shows.

    `keep` stores each argument as an attribute: one named ``..._initializer``, ``..._regularizer``, ``..._constraint``
    or ``...activation`` may be given by name or config. `get_config` gives them all back in serializable form.
    """

    DEFAULTS: dict[str, Any] = {}

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        given = vars(cls).get("DEFAULTS")
        if given:
            shown = inspect.signature(cls.__init__)
            parameters = [p.replace(default=given.get(n, p.default)) for n, p in shown.parameters.items()]
            cls.__signature__ = shown.replace(parameters=parameters[1:])  # type: ignore[attr-defined]

    def keep(self, **arguments: Any) -> None:
        """Stores the arguments as attributes and remembers their names for `get_config`."""
        for name, value in arguments.items():
            kind = _KINDS.get(name.rpartition("_")[2])
            setattr(self, name, kind.get(value) if kind else value)
        self._kept = (*getattr(self, "_kept", ()), *arguments)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in self._kept:
            kind = _KINDS.get(name.rpartition("_")[2])
            value = getattr(self, name)
            config[name] = kind.serialize(value) if kind else value
        return config

    def weight(self, name: str, shape: tuple, role: str | None = None, **options: Any) -> Any:
        """A new weight with the initializer, regularizer and constraint kept for `role` (its name by default)."""
        role = role or name
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=options.pop("initializer", getattr(self, f"{role}_initializer", None)),
            regularizer=getattr(self, f"{role}_regularizer", None),
            constraint=getattr(self, f"{role}_constraint", None),
            **options,
        )


def positive(layer: Any, name: str, value: Any) -> int:
    """`value` if it is a positive int.

    Raises:
        ValueError: it is not; names the layer's class and the argument.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) <= 0:
        raise ValueError(
            f"Received an invalid value for {'' if name == 'units' else 'argument '}`{name}`, expected a positive integer. "
            f"Received: {name}={value} (layer {type(layer).__name__})"
        )
    return int(value)


def known(layer: Any, shape: tuple, axis: int) -> int:
    """Size of `axis`, which a weight's shape depends on.

    Raises:
        ValueError: the size is unknown; names the layer, the axis and what to do.
    """
    size = shape[axis]
    if not isinstance(size, int):
        raise ValueError(
            f"{type(layer).__name__} '{layer.name}' needs a known size of axis {axis}, got input shape {shape}. "
            "Give Input a fixed size there."
        )
    return size


def ints(name: str, value: Any, count: int, allow_zero: bool = False) -> tuple[int, ...]:
    """`value`, an int or a sequence of `count` ints, as a tuple of `count` ints.

    Raises:
        ValueError: not that, or negative, or zero where zero makes no sense.
    """
    try:
        result = (int(value),) * count if hasattr(value, "__index__") else tuple(int(v) for v in value)
    except (TypeError, ValueError):
        result = ()
    if len(result) != count:
        raise ValueError(f"The `{name}` argument must be a tuple of {count} integers. Received {name}={value}")
    wrong = {v for v in result if v < 0 or (v == 0 and not allow_zero)}
    if wrong:
        raise ValueError(
            f"The `{name}` argument must be a tuple of {count} integers. Received {name}={value}, including values "
            f"{wrong} that do not satisfy `value {'>= 0' if allow_zero else '> 0'}`"
        )
    return result


def data_format_of(value: Any) -> str:
    """``"channels_last"`` or ``"channels_first"``; None is what `kerasoft.config` says.

    Raises:
        ValueError: anything else.
    """
    return config.standardize_data_format(value)


def padding_of(value: Any, allowed: tuple[str, ...] = ("valid", "same")) -> str:
    """`value` in lower case if it is an allowed padding.

    Raises:
        ValueError: it is not.
    """
    lower = value.lower() if isinstance(value, str) else value
    if lower not in allowed:
        raise ValueError(f"The `padding` argument must be one of {set(allowed)}. Received: padding={value}")
    return lower


def refuse(layer: Any, **arguments: Any) -> None:
    """Refuses arguments of Keras that mean nothing here, unless they are at their neutral value.

    Raises:
        ValueError: one of them is set.
    """
    for name, value in arguments.items():
        if value:
            raise ValueError(f"{type(layer).__name__} does not support `{name}`. Received: {name}={value}")


def build_inner(layer: Any, *shapes: Any) -> None:
    """Builds a layer held by another one, under its own name, unless it is built; other objects are left alone."""
    if isinstance(layer, Layer) and not layer.built:
        with layer._name_scope():
            layer.build(*shapes)
        layer.built = True


def takes(layer: Any, argument: str) -> bool:
    """Whether the layer's `call` has an argument of this name."""
    return argument in inspect.signature(layer.call).parameters


def same_shape(layer: Any, shape: tuple) -> tuple:
    """A `quick_shape` of layers that keep the shape."""
    return shape


def window_shape(layer: Any, shape: tuple, window: tuple, channels: int | None) -> tuple | None:
    """The shape after a sliding window, with `channels` (None: as before); None where the window does not fit."""
    first = layer.data_format == "channels_first"
    sizes: list[int | None] = []
    dilations = getattr(layer, "dilation_rate", (1,) * len(window))
    for n, k, s, d in zip(shape[2:] if first else shape[1:-1], window, layer.strides, dilations, strict=True):
        if n is not None:
            n = (n - d * (k - 1) - 1) // s + 1 if layer.padding == "valid" else -(-n // s)
            if n <= 0:
                return None
        sizes.append(n)
    depth = channels if channels is not None else shape[1] if first else shape[-1]
    return (shape[0], depth, *sizes) if first else (shape[0], *sizes, depth)


def keeps_shape(activation: Any) -> bool:
    """Whether an activation is one of ours that gives floats in their shape and dtype."""
    return activation is activations.linear or (
        getattr(activation, "__module__", None) == activations.__name__ and activation.__name__ != "glu"
    )
