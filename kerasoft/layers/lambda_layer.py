"""Lambda: any function as a layer."""

from __future__ import annotations

import base64
import inspect
import marshal
import types

from .. import ops, tree
from ..tensors import KerasTensor
from .configured import Configured
from .saved import from_saved, to_saved
from .shapes import is_shape


class Lambda(Configured):
    """Applies `function` to its input.

    A named function that is registered (`kerasoft.saving.register_keras_serializable`), or one of `kerasoft.ops`, is
    written by its name. A Python lambda is written as Keras writes it, as byte code, and never read back: loading it
    would run code of the file. ``safe_mode=False`` allows it for files that you trust.

    Args:
        function: called with the input, with `arguments`, and with `mask` and `training` if it has such arguments.
        output_shape: the result's shape without the batch, or a function of the input shape; told by a trace if None.
        mask: the result's mask, or a function of (inputs, mask).
        arguments: further arguments of the function, by name.

    >>> import kerasoft as ks
    >>> ks.layers.Lambda(lambda x: x * 2)(ks.ops.array([[1.0]])).tolist()
    [[2.0]]
    """

    def __init__(self, function, output_shape=None, mask=None, arguments=None, **kwargs):
        super().__init__(**kwargs)
        self.function, self.mask, self._output_shape = function, mask, output_shape
        self.arguments = arguments or {}
        self.supports_masking = mask is not None
        self.keep()
        self._takes = set(inspect.getfullargspec(function).args)

    def call(self, inputs, mask=None, training=None):
        given = dict(self.arguments)
        if "mask" in self._takes:
            given["mask"] = mask
        if "training" in self._takes:
            given["training"] = training
        return self.function(inputs, **given)

    def compute_mask(self, inputs, mask=None):
        return self.mask(inputs, mask) if callable(self.mask) else self.mask

    def compute_output_shape(self, input_shape):
        if self._output_shape is None:
            return super().compute_output_shape(input_shape)
        if callable(self._output_shape):
            return self._output_shape(input_shape)
        batch = tree.flatten(input_shape)[0]
        if is_shape(self._output_shape):
            return (batch, *self._output_shape)
        return [(batch, *shape) for shape in self._output_shape]

    def compute_output_spec(self, inputs, mask=None, training=None):
        if self._output_shape is None:
            return super().compute_output_spec(inputs, mask=mask, training=training)
        shapes = self.compute_output_shape(tree.map_structure(lambda x: x.shape, inputs))
        if is_shape(shapes):
            return KerasTensor(shapes, self.compute_dtype)
        return [KerasTensor(shape, self.compute_dtype) for shape in shapes]

    def get_config(self):
        config = {**super().get_config(), "function": _saved(self.function)}
        if self._output_shape is not None:
            shape = self._output_shape
            config["output_shape"] = _saved(shape) if callable(shape) else shape
        if self.mask is not None:
            config["mask"] = _saved(self.mask) if callable(self.mask) else to_saved(self.mask)
        config["arguments"] = to_saved(self.arguments)
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None, safe_mode=None):
        """The layer of a config.

        Raises:
            UnsafeFileError: it holds a Python lambda, and unsafe reading is not allowed.
        """
        from ..saving.registration import custom_object_scope

        config = dict(config)
        with custom_object_scope(custom_objects or {}):
            for name in ("function", "output_shape", "mask", "arguments"):
                if name in config:
                    config[name] = _loaded(config[name], safe_mode)
        if isinstance(config.get("output_shape"), list) and is_shape(config["output_shape"]):
            config["output_shape"] = tuple(config["output_shape"])
        return cls(**config)


def _saved(function):
    if isinstance(function, types.LambdaType) and function.__name__ == "<lambda>":
        closure = tuple(cell.cell_contents for cell in function.__closure__ or ()) or None
        code = base64.b64encode(marshal.dumps(function.__code__)).decode("ascii")
        parts = {"code": code, "defaults": function.__defaults__, "closure": closure}
        return {"class_name": "__lambda__", "config": parts}
    return to_saved(function)


def _loaded(saved, safe_mode):
    if not (isinstance(saved, dict) and saved.get("class_name") == "__lambda__"):
        return from_saved(saved)
    from ..errors import UnsafeFileError
    from ..saving.serialization import in_safe_mode

    if in_safe_mode() if safe_mode is None else safe_mode:
        raise UnsafeFileError(
            "Requested the deserialization of a `Lambda` layer whose `function` is a Python lambda. This carries a "
            "potential risk of arbitrary code execution and thus it is disallowed by default. If you trust the source "
            "of the artifact, you can override this error by passing `safe_mode=False` to the loading function, or "
            "calling `keras.config.enable_unsafe_deserialization()."
        )
    parts = saved["config"]
    code = marshal.loads(base64.b64decode(parts["code"]))
    defaults = tuple(tuple(d) if isinstance(d, list) else d for d in parts["defaults"] or ()) or None
    closure = tuple(types.CellType(value) for value in parts["closure"] or ()) or None
    return types.FunctionType(code, {"ops": ops, "__builtins__": __builtins__}, code.co_name, defaults, closure)
