"""InputSpec: what a layer demands of its input's shape and dtype."""

from __future__ import annotations

from typing import Any

from .. import dtypes, tree
from ..errors import LayerError
from ..tensors import known_shape, standardize_shape


class InputSpec:
    """Demands on one input.

    Args:
        dtype: its dtype.
        shape: its shape; None for any size.
        ndim, max_ndim, min_ndim: its number of axes.
        axes: sizes of single axes, e.g. ``{-1: 3}``.
        allow_last_axis_squeeze: whether a last axis of size 1 may be left out or added.
        name: the key of the input when inputs are given as a dict.
        optional: whether None may be given.
    """

    def __init__(
        self,
        dtype: Any = None,
        shape: Any = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: dict | None = None,
        allow_last_axis_squeeze: bool = False,
        name: str | None = None,
        optional: bool = False,
    ):
        self.dtype = None if dtype is None else dtypes.standardize(dtype)
        self.shape = None if shape is None else standardize_shape(shape)
        self.ndim = len(self.shape) if self.shape is not None else ndim
        self.max_ndim, self.min_ndim = max_ndim, min_ndim
        self.axes = {int(k): v for k, v in (axes or {}).items()}
        self.allow_last_axis_squeeze, self.name, self.optional = allow_last_axis_squeeze, name, optional

    def __repr__(self) -> str:
        given = {k: v for k, v in vars(self).items() if v not in (None, {}, False)}
        return f"InputSpec({', '.join(f'{k}={v}' for k, v in given.items())})"

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("dtype", "shape", "ndim", "max_ndim", "min_ndim", "axes", "optional")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InputSpec:
        return cls(**config)

    def problem(self, x: Any) -> str | None:
        """What is wrong with `x`; None if nothing."""
        shape = known_shape(x)
        n = len(shape)
        if self.ndim is not None and not self.allow_last_axis_squeeze and n != self.ndim:
            return f"expected ndim={self.ndim}, found ndim={n}. Full shape received: {shape}"
        if self.max_ndim is not None and n > self.max_ndim:
            return f"expected max_ndim={self.max_ndim}, found ndim={n}"
        if self.min_ndim is not None and n < self.min_ndim:
            return f"expected min_ndim={self.min_ndim}, found ndim={n}. Full shape received: {shape}"
        if self.dtype is not None and dtypes.standardize(x.dtype) != self.dtype:
            return f"expected dtype={self.dtype}, found dtype={dtypes.standardize(x.dtype)}"
        for axis, size in self.axes.items():
            if size is not None and shape[axis] not in (size, None):
                return (
                    f"expected axis {axis} of input shape to have value {size}, but received input with shape {shape}"
                )
        if self.shape is not None:
            want, got = self.shape, shape
            if self.allow_last_axis_squeeze:
                got = got[:-1] if got and got[-1] == 1 else got
                want = want[:-1] if want and want[-1] == 1 else want
            if any(a is not None and b is not None and a != b for a, b in zip(want, got, strict=False)):
                return f"expected shape={self.shape}, found shape={shape}"
        return None

    def advice(self, x: Any) -> str:
        """What to do about an input with a problem."""
        rank = len(known_shape(x))
        least = self.ndim if self.ndim is not None else self.min_ndim
        most = self.ndim if self.ndim is not None else self.max_ndim
        if least is not None and rank < least:
            return f". Give the input {least - rank} more axes, e.g. with Reshape or ops.expand_dims."
        if most is not None and rank > most:
            return ". Take axes away, e.g. with Flatten, Reshape or TimeDistributed."
        if self.dtype is not None and dtypes.standardize(x.dtype) != self.dtype:
            return f". Cast the input, e.g. with ops.cast(x, '{self.dtype}')."
        return (
            ". The layer was built for other sizes: give it inputs of these, or use a layer of its own for this input."
        )


def check_inputs(spec: Any, inputs: Any, layer_name: str) -> None:
    """Holds inputs against a layer's `input_spec`.

    Raises:
        LayerError: a wrong number of inputs, or one that does not fit; in Keras's words.
    """
    if not spec:
        return
    specs = tree.flatten(spec)
    names = [s.name for s in specs if s is not None]
    if isinstance(inputs, dict) and len(names) == len(specs) and all(names):
        missing = [name for name in names if name not in inputs]
        if missing:
            raise LayerError(
                f'Missing data for input "{missing[0]}". You passed a data dictionary with keys {list(inputs)}. '
                f"Expected the following keys: {names}"
            )
        inputs = [inputs[name] for name in names]
    flat = tree.flatten(inputs)
    if len(flat) != len(specs):
        if len(names) == len(specs) and all(names):
            raise LayerError(
                f'Layer "{layer_name}" expects {len(specs)} named input(s) with keys {names}, but it received '
                f"{len(flat)} input tensors. Pass inputs as a dict, e.g. `layer({{"
                + ", ".join(f"'{n}': ..." for n in names)
                + "})`."
            )
        raise LayerError(
            f'Layer "{layer_name}" expects {len(specs)} input(s), but it received {len(flat)} input tensors. '
            f"Inputs received: {[known_shape(x) if hasattr(x, 'shape') else x for x in flat]}. "
            "Give a list with one tensor for each."
        )
    for index, (x, s) in enumerate(zip(flat, specs, strict=True)):
        if s is None or (x is None and s.optional):
            continue
        if not hasattr(x, "shape"):
            raise LayerError(
                f"Inputs to a layer should be tensors. Got '{x}' (of type {type(x)}) as input for layer '{layer_name}'."
            )
        problem = s.problem(x)
        if problem:
            name = f" with name '{s.name}'" if s.name else ""
            raise LayerError(
                f'Input {index}{name} of layer "{layer_name}" is incompatible with the layer: {problem}{s.advice(x)}'
            )
