"""Layers with quantised weights: which weights a layer quantises, along which axes, and how its call uses them.

The integer products are computed in float32: both factors are small integers, so a product of up to 1,040 inputs is exact
and longer ones are rounded as floats are. Gradients flow to the inputs as if nothing had been rounded, and not to the
weights.
"""

from __future__ import annotations

import functools
import math
import re
import warnings
from typing import Any

import numpy as np

from .. import dtype_policies, ops
from .configs import Int4QuantizationConfig, QuantizationConfig, resolve
from .groups import abs_max_quantize_grouped_with_zero_point, dequantized_groups
from .maximum import AbsMaxQuantizer
from .packing import pack_int4, unpack_int4

INT4 = (-8, 7)


class Form:
    """One quantised matrix of a layer: the weight `name` with ``<name>_scale`` (and ``_zero``, ``g_idx``).

    Attributes:
        name: of the weight.
        reduced: the axes of the weight that a product sums over (per-channel scales leave them out).
    """

    def __init__(self, layer: Any, name: str, reduced: tuple[int, ...], columns_first: bool = False):
        self.layer, self.name, self.reduced = layer, name, reduced
        self.columns_first = columns_first  # an embedding table: packed and grouped along its last axis

    def matrix(self, shape: tuple) -> tuple[int, int]:
        """(summed sizes, other sizes) of a weight of this shape, as int4 stores it."""
        rows = math.prod(shape[a] for a in self.reduced)
        return rows, math.prod(shape) // rows

    def scale_shape(self, shape: tuple) -> tuple[int, ...]:
        return tuple(size for axis, size in enumerate(shape) if axis not in self.reduced)

    # --- weights ---

    def build(self, shape: tuple, mode: str, config: Any) -> None:
        layer, name = self.layer, self.name
        add = functools.partial(layer.add_weight, trainable=False)
        if mode == "int8":
            setattr(layer, name, add(name=name, shape=shape, initializer="zeros", dtype="int8"))
            setattr(
                layer, f"{name}_scale", add(name=f"{name}_scale", shape=self.scale_shape(shape), initializer="ones")
            )
            return
        rows, columns = self.matrix(shape)
        block = block_size(layer, config)
        layer._int4_block_size, layer._int4_shape = block, shape
        groups = None if block is None else math.ceil(rows / block)
        if self.columns_first:
            packed: tuple = (columns, (rows + 1) // 2)
            scales: tuple = (columns,) if groups is None else (columns, groups)
        else:
            packed = (rows, (columns + 1) // 2)
            scales = (columns,) if groups is None else (groups, columns)
        setattr(layer, name, add(name=name, shape=packed, initializer="zeros", dtype="int8"))
        setattr(layer, f"{name}_scale", add(name=f"{name}_scale", shape=scales, initializer="ones"))
        if block is not None:
            setattr(layer, f"{name}_zero", add(name=f"{name}_zero", shape=scales, initializer="zeros", dtype="int8"))
            layer.g_idx = add(name="g_idx", shape=(rows,), initializer="zeros", dtype="float32")
            layer.g_idx.assign(np.arange(rows, dtype="float32") // block)

    def convert(self, value: np.ndarray, mode: str, config: Any) -> dict[str, Any]:
        """The values of the quantised weights for the float weight `value`."""
        quantizer = QuantizationConfig.weight_quantizer_or_default(config, None)
        if mode == "int8":
            q, scale = (quantizer or AbsMaxQuantizer(axis=self.reduced))(value, to_numpy=True)
            return {self.name: q, f"{self.name}_scale": self.stored_scale(np.asarray(scale), value.shape)}
        rows, columns = self.matrix(value.shape)
        flat = value.T if self.columns_first else value.reshape(rows, columns)
        block = block_size(self.layer, config)
        found: dict[str, Any] = {}
        if block is None:
            axis = -1 if self.columns_first else 0
            quantizer = quantizer or AbsMaxQuantizer(axis=axis, value_range=INT4)
            q, scale = quantizer(value if self.columns_first else flat, to_numpy=True)
            found[f"{self.name}_scale"] = np.squeeze(np.asarray(scale), axis)
            q = np.asarray(q)
        else:
            q, scale, zero = map(
                np.asarray, abs_max_quantize_grouped_with_zero_point(flat, block_size=block, to_numpy=True)
            )
            if self.columns_first:
                q, scale, zero = q.T, scale.T, zero.T
            found |= {f"{self.name}_scale": scale, f"{self.name}_zero": zero}
        return {self.name: pack_int4(q, axis=-1)[0], **found}

    def stored_scale(self, scale: np.ndarray, shape: tuple) -> np.ndarray:
        return scale.reshape(self.scale_shape(shape))

    def stored(self) -> list[str]:
        """The names of the weights, in the order of files."""
        return [self.name, "bias", f"{self.name}_scale", f"{self.name}_zero", "g_idx"]

    # --- float weights ---

    def taken(self) -> np.ndarray:
        """The float weight, which the layer then no longer has."""
        value = raw(self.layer, self.name).numpy()
        delattr(self.layer, self.name)
        return value.astype(np.float32, copy=False)

    def merged(self) -> np.ndarray:
        """The quantised weight as floats, with the layer's low-rank product."""
        layer = self.layer
        if layer.quantization_mode == "int4":
            value = np.asarray(self.floats(), np.float32)
        else:
            scale = self.weight_scale(getattr(layer, f"{self.name}_scale").numpy())
            value = raw(layer, self.name).numpy() / scale
        a, b = (np.asarray(getattr(layer, f"lora_{self.name}_{part}")) for part in "ab")
        return (value + layer.lora_alpha / layer.lora_rank * (a @ b)).astype(np.float32)

    def weight_scale(self, scale: np.ndarray) -> np.ndarray:
        """A stored int8 scale that broadcasts against the weight."""
        return np.expand_dims(scale, self.reduced)

    # --- use ---

    def unpacked(self) -> Any:
        """The int4 numbers as stored, floats of (rows, columns) or (columns, rows)."""
        rows, columns = self.matrix(self.layer._int4_shape)
        packed = ops.convert_to_tensor(raw(self.layer, self.name))
        return ops.cast(unpack_int4(packed, rows if self.columns_first else columns, axis=-1), "float32")

    def floats(self) -> Any:
        """The int4 weight as floats, in its first shape."""
        layer, scale = self.layer, ops.convert_to_tensor(getattr(self.layer, f"{self.name}_scale"))
        q = self.unpacked()
        if layer._int4_block_size is not None:
            zero = ops.convert_to_tensor(getattr(layer, f"{self.name}_zero"))
            group = ops.convert_to_tensor(layer.g_idx)
            table = dequantized_groups(q, scale, zero, group, axis=-1 if self.columns_first else 0)
        else:
            table = ops.divide(q, ops.expand_dims(scale, -1) if self.columns_first else scale)
        return ops.cast(ops.reshape(table, layer._int4_shape), layer.compute_dtype)


def raw(layer: Any, name: str) -> Any:
    """The variable of a weight, without the low-rank product that `layer.<name>` may add."""
    return layer.__dict__.get(f"_{name}", layer.__dict__.get(name))


def with_low_rank(layer: Any, y: Any, a_product: Any) -> Any:
    """y plus the layer's low-rank product, if it has one; `a_product` gives the product of the inputs and the first."""
    if not getattr(layer, "lora_enabled", False):
        return y
    b = getattr(layer, f"lora_{layer.lora_kernel}_b")
    product = ops.matmul(a_product(getattr(layer, f"lora_{layer.lora_kernel}_a")), b)
    return ops.cast(ops.add(y, ops.multiply(product, layer.lora_alpha / layer.lora_rank)), layer.compute_dtype)


def block_size(layer: Any, config: Any) -> int | None:
    """How many inputs share an int4 scale; None for all."""
    policy = layer._own_policy
    found = config.block_size if isinstance(config, Int4QuantizationConfig) else getattr(policy, "block_size", None)
    return None if found in (None, -1) else found


def activations(layer: Any, x: Any, axis: Any) -> tuple[Any, Any]:
    """``(q, scale)`` of a call's inputs, q as floats with the gradient of x · scale; scale None without quantiser."""
    if layer.inputs_quantizer is None:
        return x, None
    q, scale = layer.inputs_quantizer(x, axis=axis)
    scale = ops.stop_gradient(scale)
    plain = ops.multiply(x, scale)
    q = ops.add(plain, ops.stop_gradient(ops.subtract(ops.cast(q, plain.dtype), plain)))
    return ops.cast(q, "float32"), scale


class DenseForm(Form):
    def __init__(self, layer: Any):
        super().__init__(layer, "kernel", (0,))

    def call(self, inputs: Any, training: Any = None) -> Any:
        layer = self.layer
        y = with_low_rank(layer, self.product(inputs), lambda a: ops.matmul(inputs, a))
        return finished(layer, y)

    def product(self, inputs: Any) -> Any:
        layer = self.layer
        if layer.quantization_mode == "int4" and layer._int4_block_size is not None:
            return ops.matmul(inputs, self.floats())
        x, scale = activations(layer, inputs, -1)
        kernel = self.unpacked() if layer.quantization_mode == "int4" else ops.cast(raw(layer, "kernel"), "float32")
        y = ops.cast(ops.matmul(x, kernel), layer.compute_dtype)
        weights = ops.convert_to_tensor(layer.kernel_scale)
        return ops.divide(y, weights if scale is None else ops.multiply(weights, scale))


class EinsumForm(Form):
    """Scales have the axes of the output: (1, ..., 1, channels) and the like."""

    def __init__(self, layer: Any):
        left, self.output = layer.equation.split("->")
        self.input, self.kernel = left.split(",")
        rank = layer._einsum_rank
        free = [c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in layer.equation]
        extra = "".join(free[: rank - len(self.input.replace("...", ""))])
        self.input, self.output = (text.replace("...", extra) for text in (self.input, self.output))
        super().__init__(layer, "kernel", tuple(i for i, c in enumerate(self.kernel) if c not in self.output))

    def aligned(self, scale: Any, letters: str) -> Any:
        """A scale with the axes `letters` (size 1 where summed over) as one with the axes of the output."""
        kept = [i for i, c in enumerate(letters) if c in self.output]
        order = sorted(kept, key=lambda i: self.output.index(letters[i]))
        summed = tuple(i for i in range(len(letters)) if i not in kept)
        scale = ops.transpose(scale, [*summed, *order])
        sizes = dict(zip((letters[i] for i in order), scale.shape[len(summed) :], strict=True))
        shape = [sizes.get(c, 1) for c in self.output]
        unknown = [i for i, d in enumerate(shape) if not isinstance(d, (int, np.integer))]
        if len(unknown) == 1:
            shape[unknown[0]] = -1
        return ops.reshape(scale, shape)

    def scale_shape(self, shape: tuple) -> tuple[int, ...]:
        sizes = dict(zip(self.kernel, shape, strict=True))
        return tuple(sizes.get(c, 1) for c in self.output)

    def stored_scale(self, scale: np.ndarray, shape: tuple) -> np.ndarray:
        return np.asarray(self.aligned(scale, self.kernel))

    def weight_scale(self, scale: np.ndarray) -> np.ndarray:
        kept = [c for c in self.kernel if c in self.output]
        others = tuple(i for i, c in enumerate(self.output) if c not in self.kernel)
        squeezed, order = np.squeeze(scale, others), [c for c in self.output if c in self.kernel]
        return np.expand_dims(np.transpose(squeezed, [order.index(c) for c in kept]), self.reduced)

    def call(self, inputs: Any, training: Any = None) -> Any:
        layer = self.layer
        y = with_low_rank(layer, self.product(inputs), lambda a: ops.einsum(layer.equation, inputs, a))
        return finished(layer, y)

    def product(self, inputs: Any) -> Any:
        layer = self.layer
        axes = tuple(i for i, c in enumerate(self.input) if c not in self.output)
        if layer.quantization_mode == "int4":
            x, scale = (inputs, None) if layer._int4_block_size is not None else activations(layer, inputs, axes)
            y = ops.cast(ops.einsum(layer.equation, x, self.floats()), layer.compute_dtype)
            return y if scale is None else ops.divide(y, self.aligned(scale, self.input))
        x, scale = activations(layer, inputs, axes)
        y = ops.cast(ops.einsum(layer.equation, x, ops.cast(raw(layer, "kernel"), "float32")), layer.compute_dtype)
        weights = ops.convert_to_tensor(layer.kernel_scale)
        divisor = weights if scale is None else ops.multiply(self.aligned(scale, self.input), weights)
        return ops.divide(y, divisor)


class EmbeddingForm(Form):
    def __init__(self, layer: Any):
        super().__init__(layer, "embeddings", (1,), columns_first=True)

    def call(self, inputs: Any, training: Any = None) -> Any:
        layer = self.layer
        if inputs.dtype not in ("int32", "int64"):
            inputs = ops.cast(inputs, "int32")
        return with_low_rank(layer, self.rows(inputs), lambda a: ops.take(a, inputs, axis=0))

    def rows(self, inputs: Any) -> Any:
        layer = self.layer
        if layer.quantization_mode == "int4":
            return ops.take(self.floats(), inputs, axis=0)
        table = ops.convert_to_tensor(raw(layer, "embeddings"))
        rows = ops.cast(ops.take(table, inputs, axis=0), layer.compute_dtype)
        scale = ops.take(ops.convert_to_tensor(layer.embeddings_scale), inputs, axis=0)
        return ops.divide(rows, ops.expand_dims(scale, -1))


class ReversibleForm(EmbeddingForm):
    """An embedding with a way back, by the same table or by one of its own, (output_dim, input_dim)."""

    back = "reverse_embeddings"

    def stored(self) -> list[str]:
        return [*super().stored(), self.back, f"{self.back}_scale", f"{self.back}_zero"]

    def taken(self) -> np.ndarray:
        if not self.layer.tie_weights:
            self.back_floats = raw(self.layer, self.back).numpy()
            delattr(self.layer, self.back)
        return super().taken()

    def build(self, shape: tuple, mode: str, config: Any) -> None:
        super().build(shape, mode, config)
        if self.layer.tie_weights:
            return
        (rows, columns), block = shape[::-1], block_size(self.layer, config)
        packed = (rows, columns) if mode == "int8" else ((rows + 1) // 2, columns)
        grouped = mode == "int4" and block is not None
        scales = (math.ceil(rows / block), columns) if grouped else (columns,)
        self._add(self.back, packed, "zeros", "int8")
        self._add(f"{self.back}_scale", scales, "ones", None)
        if grouped:
            self._add(f"{self.back}_zero", scales, "zeros", None)

    def _add(self, name: str, shape: tuple, initializer: str, dtype: Any) -> None:
        made = self.layer.add_weight(name=name, shape=shape, initializer=initializer, dtype=dtype, trainable=False)
        setattr(self.layer, name, made)

    def convert(self, value: np.ndarray, mode: str, config: Any) -> dict[str, Any]:
        found = super().convert(value, mode, config)
        if self.layer.tie_weights:
            return found
        block, value_range = block_size(self.layer, config), INT4 if mode == "int4" else (-127, 127)
        if mode == "int4" and block is not None:
            q, scale, zero = abs_max_quantize_grouped_with_zero_point(self.back_floats, block, to_numpy=True)
            found |= {f"{self.back}_scale": scale, f"{self.back}_zero": zero}
        else:
            quantizer = QuantizationConfig.weight_quantizer_or_default(config, None)
            q, scale = (quantizer or AbsMaxQuantizer(axis=0, value_range=value_range))(self.back_floats, to_numpy=True)
            found[f"{self.back}_scale"] = np.asarray(scale).reshape(-1)
        return {**found, self.back: pack_int4(q, axis=0)[0] if mode == "int4" else q}

    def call(self, inputs: Any, reverse: bool = False, training: Any = None) -> Any:
        layer = self.layer
        if not reverse:
            return super().call(inputs)
        x, scale = activations(layer, inputs, -1)
        grouped = layer.quantization_mode == "int4" and layer._int4_block_size is not None
        y = ops.cast(ops.matmul(x, self._table(grouped)), layer.compute_dtype)
        if not grouped:
            own = "embeddings_scale" if layer.tie_weights else f"{self.back}_scale"
            weights = ops.convert_to_tensor(getattr(layer, own))
            y = ops.divide(y, weights if scale is None else ops.multiply(scale, weights))
        elif scale is not None:
            y = ops.divide(y, scale)
        cap = layer.logit_soft_cap
        return y if cap is None else ops.multiply(ops.tanh(ops.divide(y, cap)), cap)

    def _table(self, grouped: bool) -> Any:
        """The matrix of the way back: floats where groups have scales of their own, else the integers."""
        layer = self.layer
        if layer.tie_weights:
            if grouped:
                return ops.transpose(self.floats())
            stored = raw(layer, self.name)
            return ops.transpose(self.unpacked() if layer.quantization_mode == "int4" else ops.cast(stored, "float32"))
        q = ops.convert_to_tensor(getattr(layer, self.back))
        if layer.quantization_mode == "int4":
            q = unpack_int4(q, layer.output_dim, axis=0)
        if not grouped:
            return ops.cast(q, "float32")
        scale, zero = (ops.convert_to_tensor(getattr(layer, f"{self.back}_{part}")) for part in ("scale", "zero"))
        return dequantized_groups(q, scale, zero, ops.convert_to_tensor(layer.g_idx), axis=0)


def finished(layer: Any, y: Any) -> Any:
    """Bias and activation."""
    if layer.bias is not None:
        y = ops.add(y, layer.bias)
    return y if layer.activation is None else layer.activation(y)


FORMS: dict[str, Any] = {
    "Dense": DenseForm,
    "EinsumDense": EinsumForm,
    "Embedding": EmbeddingForm,
    "ReversibleEmbedding": ReversibleForm,
}


def form_of(layer: Any) -> Any:
    """The quantised form of a layer (or of the class it extends); None if it has none."""
    for cls in type(layer).__mro__:
        if cls.__name__ in FORMS and cls.__module__.startswith("kerasoft."):
            return FORMS[cls.__name__](layer)
    return None


def _unsupported(layer: Any, what: str) -> NotImplementedError:
    return NotImplementedError(f"Layer {type(layer).__name__} does not have a `{what}` method implemented.")


# --- what Layer and Model call ------------------------------------------------------------------------------------


def quantize_layer(layer: Any, mode: Any, type_check: bool = True, config: Any = None) -> None:
    """Replaces a layer's weights by quantised ones; see `Layer.quantize`."""
    config = resolve(mode, config)
    check_quantizable(layer, config.mode)
    if type(layer).__name__ not in FORMS and (type_check or form_of(layer) is None):
        raise _unsupported(layer, "quantize")
    form = form_of(layer)
    layer.quantization_config = config
    value = form.taken()
    found = form.convert(value, config.mode, config)
    with layer._name_scope():
        build_quantized(layer, value.shape, config.mode, config)
    for name, x in found.items():
        raw(layer, name).assign(x)
    if layer.dtype_policy.quantization_mode is None:
        mode = config.mode
        if mode == "int4":
            mode = f"int4/{block_size(layer, config) or -1}"
        layer.dtype_policy = dtype_policies.get(f"{mode}_from_{layer.dtype_policy.name}")


def check_quantizable(layer: Any, mode: str) -> None:
    """Raises ValueError for a layer (or model) that is not built, is quantised, or computes in float16."""
    if not layer.built:
        raise ValueError(
            f"Cannot quantize a layer that isn't yet built. Layer '{layer.name}' (of type '{type(layer).__name__}') is "
            "not built yet."
        )
    if layer._is_quantized:
        raise ValueError(
            f"Layer '{layer.name}' is already quantized with dtype_policy='{layer.dtype_policy.name}'. "
            f"Received: mode={mode}"
        )
    if mode == "int8" and layer.compute_dtype == "float16":
        raise ValueError(
            f"Quantization mode='{mode}' doesn't work well with compute_dtype='float16'. Consider loading model/layer "
            "with another dtype policy such as 'mixed_bfloat16' or 'mixed_float16' before calling `quantize()`."
        )


def build_quantized(layer: Any, shape: tuple, mode: str | None = None, config: Any = None) -> None:
    """Makes the weights of a quantised layer whose float weight would have `shape`."""
    form = form_of(layer)
    if form is None:
        raise _unsupported(layer, "quantized_build")
    mode = mode or layer.quantization_mode
    if mode not in ("int8", "int4"):
        raise _invalid_mode(mode)
    default = AbsMaxQuantizer() if mode == "int8" else None
    layer.inputs_quantizer = QuantizationConfig.activation_quantizer_or_default(config, default)
    layer._is_quantized = True
    form.build(tuple(shape), mode, config)


def _invalid_mode(mode: Any) -> NotImplementedError:
    return NotImplementedError(
        f"Invalid quantization mode. Expected one of ('int8', 'int4'). Received: quantization_mode={mode}"
    )


def call_quantized(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """A quantised layer's call; layers without weights of their own compute as before."""
    form = form_of(layer)
    if form is None or not layer._is_quantized:
        if layer.quantization_mode not in ("int8", "int4"):
            raise _invalid_mode(layer.quantization_mode)
        if form is not None or layer._own_variables:
            raise _unsupported(layer, "_int8_call")
        return layer.call(*args, **kwargs)
    return form.call(*args, **kwargs)


def stored_variables(layer: Any) -> list[Any]:
    """The variables of a quantised layer in the order of Keras's files."""
    found = [raw(layer, name) for name in form_of(layer).stored()]
    return [v for v in found if v is not None]


def save_merged(layer: Any, store: Any) -> None:
    """Saves a quantised layer with its low-rank product in the weight, quantised again."""
    form = form_of(layer)
    found = form.convert(form.merged(), layer.quantization_mode, layer.quantization_config)
    names = [name for name in form.stored() if raw(layer, name) is not None]
    for i, name in enumerate(names):
        store[str(i)] = np.asarray(found[name]) if name in found else raw(layer, name).numpy()


def quantize_model(model: Any, mode: Any, config: Any, filters: Any, **kwargs: Any) -> None:
    """Quantises every layer of a model that can be; warns of the others. See `Model.quantize`."""
    type_check = kwargs.pop("type_check", True)
    if "calibration_data" in kwargs:
        raise ValueError(
            "`quantize` takes no calibration_data, as in Keras: it scales activations at each call. For ranges measured on "
            "sample rows use `kerasoft.quantizers.post_training(model, calibration_data)`, which returns a new model."
        )
    if kwargs:
        raise ValueError(f"Unrecognized keyword arguments passed to {type(model).__name__}: {kwargs}")
    config = resolve(mode, config)
    check_quantizable(model, config.mode)
    if filters is not None and not (isinstance(filters, (str, list, tuple)) or callable(filters)):
        raise ValueError(
            "The `filters` argument must be a regex string, a list of regex strings, or a callable. Received: "
            f"{type(filters)}"
        )
    for layer in model._flatten_layers():
        if len(layer._flatten_layers()) != 1 or not _chosen(layer, filters):
            continue
        try:
            layer.quantize(config.mode, type_check=type_check, config=config)
        except NotImplementedError as error:
            warnings.warn(str(error), stacklevel=3)
        except AttributeError:
            continue


def _chosen(layer: Any, filters: Any) -> bool:
    if filters is None:
        return True
    if isinstance(filters, str):
        return bool(re.search(filters, layer.name))
    if isinstance(filters, (list, tuple)):
        return any(re.search(pattern, layer.name) for pattern in filters)
    return bool(filters(layer))
