"""Building: how a layer makes its weights, once, when it first sees its input shapes."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np

from .. import dtypes, naming
from ..errors import LayerError
from ..tensors import known_shape
from ..variables import Variable
from .call_arguments import CallArguments, shapes_for_build, wrong_build
from .shapes import shape_tuple


class Building:
    """The part of `Layer` that makes weights.

    Attributes:
        built: whether they are there.
    """

    @property
    def path(self) -> str | None:
        """The names of the layers around it and its own, joined by ``/``; None before the first use."""
        return self._path

    def build(self, *input_shapes: Any) -> None:
        """Makes the weights. Override it; `input_shape` is a tuple with None for unknown sizes."""
        self.built = True

    def add_weight(
        self,
        shape: Any = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        aggregation: str = "none",
        overwrite_with_gradient: bool = False,
        name: str | None = None,
    ) -> Variable:
        """A new weight of this layer.

        Args:
            shape: sizes, all known; () is a scalar.
            initializer: a name, an object, or a callable ``(shape, dtype)``; glorot_uniform for floats, zeros else.
            trainable: False for state such as moving averages.
            regularizer, constraint: names, objects or callables.

        Raises:
            LayerError: a size is unknown.
        """
        from .. import constraints, initializers, regularizers

        if isinstance(shape, str):
            raise ValueError(
                f"`name` must be passed as a keyword argument. Received: add_weight('{shape}', ...). "
                f"Use: add_weight(shape=..., name='{shape}')."
            )
        shape = () if shape is None else (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        if not all(isinstance(d, (int, np.integer)) for d in shape):
            raise LayerError(
                f"Layer '{self.name}' ({type(self).__name__}) needs a known size for its weight "
                f"'{name or 'variable'}' of shape {shape}. Give the Input the missing size."
            )
        dtype = self.variable_dtype if dtype is None else dtypes.standardize(dtype)
        if initializer is None:
            initializer = "glorot_uniform" if dtypes.is_float(dtype) else "zeros"
        with self._name_scope():
            variable = Variable(
                initializers.get(initializer), shape, dtype, trainable, autocast, aggregation, name=name or "variable"
            )
        variable.regularizer = regularizers.get(regularizer)
        variable.constraint = constraints.get(constraint)
        self._track_variable(variable)
        return variable

    def _name_scope(self) -> naming.absolute_scope:
        """Opens this layer's path, as it was at first use."""
        return naming.absolute_scope(self._find_path())

    def _find_path(self) -> str:
        if self._path is None:
            parents = naming.current_path()
            self._path = f"{parents}/{self.name}" if parents else self.name
        return self._path

    def _build_once(self, arguments: CallArguments) -> None:
        if self.built:
            return
        shapes = shapes_for_build(arguments, self.build, lambda x: None if x is None else known_shape(x))
        if shapes is None:
            raise LayerError(wrong_build(self, arguments))
        with self._name_scope():
            self._call_build(shapes)

    def _call_build(self, shapes: dict[str, Any]) -> None:
        if type(self).build is not Building.build:
            self.build(**shapes)
        self._build_shapes = shapes or None
        self._after_build()

    def _after_build(self) -> None:
        self.built = True
        if _is_users(type(self)) and (type(self).build is not Building.build or not self._layers):
            self._locked = True
        if not self._trainable:
            self.trainable = False  # reaches the new variables and sublayers

    def get_build_config(self) -> dict | None:
        """The shapes that `build` was called with."""
        if self._build_shapes is None:
            return None
        if len(self._build_shapes) == 1:
            return {"input_shape": next(iter(self._build_shapes.values()))}
        return {"shapes_dict": self._build_shapes}

    def build_from_config(self, config: dict) -> None:
        """Builds with shapes kept by `get_build_config`."""
        if not config or self.built:
            return
        with self._name_scope():
            if "shapes_dict" in config:
                self._call_build({k: shape_tuple(v) for k, v in config["shapes_dict"].items()})
            elif config.get("input_shape") is not None:
                shape = shape_tuple(config["input_shape"])
                if type(self).build is not Building.build:
                    self.build(shape)
                self._build_shapes = {"input_shape": shape}
                self._after_build()

    @property
    def _has_default_build(self) -> bool:
        return type(self).build is Building.build


def complete_build(build: Any) -> Any:
    """A `build` that may be called directly: weights get the layer's path, and the layer is built afterwards."""
    names = list(inspect.signature(build).parameters)[1:]

    @functools.wraps(build)
    def complete(self: Building, *args: Any, **kwargs: Any) -> Any:
        if self._building:  # a subclass called super().build()
            return build(self, *args, **kwargs)
        self._building = True
        try:
            with self._name_scope():
                result = build(self, *args, **kwargs)
        finally:
            self._building = False
        shapes = {**dict(zip(names, args, strict=False)), **kwargs}
        self._build_shapes = {name: shape_tuple(shape) for name, shape in shapes.items() if shape is not None}
        self._after_build()
        return result

    return complete


@functools.lru_cache(maxsize=4096)
def _is_users(cls: type) -> bool:
    """Whether a class derives from `Layer` and from no layer or model of this library."""
    from .layer import Layer

    return all(c in Layer.__mro__ or not c.__module__.startswith("kerasoft.") for c in cls.__mro__)
