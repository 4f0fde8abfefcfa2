"""Dtype policies: in what a layer keeps its weights and in what it computes."""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from typing import Any

from . import config, dtypes

QUANTIZATION_MODES = ("int8", "float8", "int4", "gptq", "awq")

__all__ = [
    "AWQDTypePolicy", "DTypePolicy", "DTypePolicyMap", "FloatDTypePolicy", "GPTQDTypePolicy", "Int4DTypePolicy",
    "QuantizedDTypePolicy", "QuantizedFloat8DTypePolicy", "deserialize", "get", "serialize",
]  # fmt: skip


class DTypePolicy:
    """What a layer computes in and what its weights are kept in.

    Args:
        name: a dtype (both the same), or ``mixed_float16`` / ``mixed_bfloat16`` (weights in float32); None: the default.

    Raises:
        TypeError: no string. ValueError: no dtype.

    >>> policy = DTypePolicy("mixed_bfloat16")
    >>> policy.compute_dtype, policy.variable_dtype
    ('bfloat16', 'float32')
    """

    def __init__(self, name: str | None = None):
        name = config.dtype_policy().name if name is None else name
        self._name: str | None = name
        self._compute_dtype, self._variable_dtype = _parsed(name)
        self._quantization_mode: str | None = None

    name = property(lambda self: self._name)
    compute_dtype = property(lambda self: self._compute_dtype)
    variable_dtype = property(lambda self: self._variable_dtype)
    quantization_mode = property(lambda self: self._quantization_mode)

    def convert_input(self, x: Any, autocast: bool, dtype: Any) -> Any:
        """`x` as a tensor, floats cast to `dtype` if `autocast`."""
        from . import ops

        dtype = dtypes.standardize(dtype)
        if not (hasattr(x, "dtype") and hasattr(x, "shape")):
            return x
        if autocast and dtypes.is_float(x.dtype) and dtypes.standardize(x.dtype) != dtype:
            return ops.cast(x, dtype)
        return x if hasattr(x, "op") or hasattr(x, "record_history") else ops.convert_to_tensor(x)

    def get_config(self) -> dict:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict) -> Any:
        return cls(**config)

    def __repr__(self) -> str:
        kind = "DTypePolicy" if isinstance(self, FloatDTypePolicy) else type(self).__name__
        return f'<{kind} "{self._name}">'

    def __eq__(self, other: object) -> bool:
        plain = (DTypePolicy, FloatDTypePolicy)
        alike = type(other) in plain if type(self) in plain else type(other) is type(self)
        return alike and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self).__name__.removeprefix("Float"), self._name))


class FloatDTypePolicy(DTypePolicy):
    """Another name of `DTypePolicy`."""


def _parsed(name: Any) -> tuple[str, str]:
    """Compute and variable dtype."""
    if not isinstance(name, str):
        raise TypeError(
            f"'name' must be a string, such as 'mixed_float16'. Received: name={name} (of type {type(name)})"
        )
    if name in ("mixed_float16", "mixed_bfloat16"):
        return name.removeprefix("mixed_"), "float32"
    try:
        dtype = dtypes.standardize(name)
    except ValueError as error:
        raise ValueError(
            f"Cannot convert '{name}' to a mixed precision DTypePolicy. Valid policies include 'mixed_float16', "
            "'mixed_bfloat16', and the name of any float dtype such as 'float32'."
        ) from error
    return dtype, dtype


# --- quantised weights ------------------------------------------------------------------------------------------------


class QuantizedDTypePolicy(DTypePolicy):
    """The policy of a layer whose weights are quantised.

    Args:
        mode: one of int8, float8, int4, gptq, awq.
        source_name: the policy before; None: the default.
    """

    def __init__(self, mode: str, source_name: str | None = None):
        source_name = config.dtype_policy().name if source_name is None else source_name
        self._name = f"{mode}_from_{source_name}"
        self._compute_dtype, self._variable_dtype = _parsed(source_name)
        if mode not in QUANTIZATION_MODES:
            raise ValueError(f"Invalid quantization mode. Expected one of {QUANTIZATION_MODES}. Received: mode={mode}")
        if self._compute_dtype == "float16" and mode == "int8":
            raise ValueError(f"Quantization mode='{mode}' doesn't work well with compute_dtype='float16'.")
        self._source_name = source_name
        self._quantization_mode = mode

    def get_config(self) -> dict:
        return {"mode": self._quantization_mode, "source_name": self._source_name}


class QuantizedFloat8DTypePolicy(QuantizedDTypePolicy):
    """The policy of a layer trained in float8; `amax_history_length` steps set the scale."""

    default_amax_history_length = 1024

    def __init__(self, mode: str, source_name: str | None = None, amax_history_length: int = 1024):
        super().__init__(mode, source_name)
        if not isinstance(amax_history_length, int):
            raise TypeError(
                f"`amax_history_length` must be an integer. Received: amax_history_length={amax_history_length}"
            )
        self._amax_history_length = amax_history_length

    amax_history_length = property(lambda self: self._amax_history_length)

    def get_config(self) -> dict:
        return {**super().get_config(), "amax_history_length": self.amax_history_length}


class _DetailedPolicy(QuantizedDTypePolicy):
    """A mode with numbers behind slashes, such as ``gptq/4/128``."""

    form = ""

    def __init__(self, mode: str, source_name: str | None = None):
        base, *numbers = str(mode).split("/")
        expected, kind = f"'{self.form}'", type(self).__name__
        if base != self.form.split("/")[0] or len(numbers) != self.form.count("/"):
            raise ValueError(f"Invalid mode for {kind}. Expected format {expected}, but got '{mode}'.")
        try:
            self.numbers = [int(n) for n in numbers]
        except ValueError as error:
            raise ValueError(
                f"Invalid mode for {kind}. {' and '.join(self.form.split('/')[1:])} must be {'an integer' if len(numbers) == 1 else 'integers'}. Expected format "
                f"{expected}, but got '{mode}'."
            ) from error
        self.check(mode)
        super().__init__(base, source_name)
        self._name = f"{mode}_from_{source_name}"
        self.mode = base

    def check(self, mode: str) -> None:
        """Sets the numbers as attributes.

        Raises:
            ValueError: one of them has no meaning.
        """
        raise NotImplementedError

    def get_config(self) -> dict:
        return {**super().get_config(), "mode": "/".join([self.mode, *map(str, self.numbers)])}


class Int4DTypePolicy(_DetailedPolicy):
    """int4 weights with one scale for every `block_size` of them: mode ``int4/<block_size>``, -1 for one a channel."""

    form = "int4/<block_size>"

    def check(self, mode: str) -> None:
        (self.block_size,) = self.numbers
        if self.block_size < -1 or self.block_size == 0:
            raise ValueError(
                "Invalid block_size in mode. Supported values are -1 (per-channel) or a positive integer (sub-channel), "
                f"but got {self.block_size} from '{mode}'."
            )


class GPTQDTypePolicy(_DetailedPolicy):
    """GPTQ weights: mode ``gptq/<weight_bits>/<group_size>``, e.g. ``gptq/4/128``."""

    form = "gptq/<weight_bits>/<group_size>"
    whole = "whole-tensor"

    def check(self, mode: str) -> None:
        self.weight_bits, self.group_size = self.numbers
        self.check_bits(mode)
        if self.group_size < -1 or self.group_size == 0:
            raise ValueError(
                f"Invalid group_size in mode. Supported values are -1 ({self.whole}) or a positive integer, but got "
                f"{self.group_size} from '{mode}'."
            )

    def check_bits(self, mode: str) -> None:
        if self.weight_bits not in (2, 3, 4, 8):
            raise ValueError(
                f"Invalid weight_bits in mode. Supported values are 2, 3, 4, and 8, but got {self.weight_bits} from "
                f"'{mode}'."
            )


class AWQDTypePolicy(GPTQDTypePolicy):
    """AWQ weights: mode ``awq/4/<group_size>``."""

    form = "awq/<weight_bits>/<group_size>"
    whole = "per-channel"

    def check_bits(self, mode: str) -> None:
        if self.weight_bits != 4:
            raise ValueError(
                "Invalid weight_bits in mode. AWQ only supports 4-bit quantization, but got "
                f"{self.weight_bits} from '{mode}'."
            )


# --- one policy a layer -----------------------------------------------------------------------------------------------


class DTypePolicyMap(DTypePolicy, MutableMapping):
    """Policies by the path of a layer; keys may be regular expressions that match the whole path.

    Args:
        default_policy: of paths that no key matches.
        policy_map: first entries.

    >>> policies = DTypePolicyMap("float32", {"encoder/.*": DTypePolicy("bfloat16")})
    >>> policies["encoder/dense"].name, policies["decoder/dense"].name
    ('bfloat16', 'float32')
    """

    def __init__(self, default_policy: Any = None, policy_map: dict | None = None):
        if isinstance(default_policy, DTypePolicyMap):
            raise ValueError("`default_policy` cannot be a `DTypePolicyMap`.")
        if policy_map is not None and not isinstance(policy_map, dict):
            raise TypeError(
                f"If specified, `policy_map` must be a dict. Received: policy_map={policy_map} of type {type(policy_map)}"
            )
        self._default_policy_arg = default_policy
        self._default_policy = get(default_policy)
        self._policy_map: dict[str, Any] = policy_map or {}

    name = property(lambda self: f"map_{self.default_policy._name}")
    default_policy = property(lambda self: get(self._default_policy))
    variable_dtype = property(lambda self: self.default_policy.variable_dtype)
    compute_dtype = property(lambda self: self.default_policy.compute_dtype)
    quantization_mode = property(lambda self: self.default_policy.quantization_mode)

    def __getitem__(self, key: str) -> Any:
        if key in self._policy_map:
            return self._policy_map[key]
        matching = [pattern for pattern in self._policy_map if re.fullmatch(pattern, key)]
        if len(matching) > 1:
            raise ValueError(
                f"Path '{key}' matches multiple dtype policy specification keys: {matching}. Please make sure each path "
                "only matches at most one dtype policy specification key in the DTypePolicyMap."
            )
        return self._policy_map[matching[0]] if matching else self.default_policy

    def __setitem__(self, key: str, policy: Any) -> None:
        if key in self._policy_map:
            raise ValueError(
                f"{key} already exist in the DTypePolicyMap with value {self._policy_map[key]}. Please make sure to not "
                "use duplicated keys."
            )
        try:
            self._policy_map[key] = get(policy)
        except Exception as error:
            raise ValueError(
                f"Cannot interpret the assigned value by `dtype_policies.get`. Received: {policy} of type {type(policy)}"
            ) from error

    def __delitem__(self, key: str) -> None:
        del self._policy_map[key]

    def __contains__(self, key: object) -> bool:
        return key in self._policy_map

    def __len__(self) -> int:
        return len(self._policy_map)

    def __iter__(self) -> Iterator[str]:
        return iter(self._policy_map)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicyMap) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def get_config(self) -> dict:
        from .saving import serialize_keras_object

        policies = serialize_keras_object(self._policy_map)
        if self._default_policy_arg is None:  # what is read takes the default policy of its time
            for policy in policies.values():
                policy["config"] |= {name: None for name in ("name", "source_name") if name in policy["config"]}
        return {"default_policy": self._default_policy_arg, "policy_map": policies}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> DTypePolicyMap:
        from .saving import deserialize_keras_object

        policies = {k: deserialize_keras_object(v, custom_objects) for k, v in config["policy_map"].items()}
        return cls(**{**config, "policy_map": policies})

    def __repr__(self) -> str:
        mapping = [(k, v.name) for k, v in self._policy_map.items()]
        return f"<DTypePolicyMap at {hex(id(self))} default_policy={self._default_policy.name}, mapping={mapping}>"


# --- by name ----------------------------------------------------------------------------------------------------------


def serialize(dtype_policy: DTypePolicy) -> dict:
    """The policy as a config."""
    from .saving import serialize_keras_object

    return serialize_keras_object(dtype_policy)


def deserialize(config: dict, custom_objects: dict | None = None) -> Any:
    """The policy that gave this config."""
    from .saving import deserialize_keras_object

    if set(config) == {"class_name", "config"}:
        config = {"module": "keras.dtype_policies", **config, "registered_name": None}
    return deserialize_keras_object(config, custom_objects)


def get(identifier: Any) -> Any:
    """A policy from a policy, a dtype, a name, a config, or None (the default).

    Raises:
        ValueError: none of these.
    """
    if identifier is None:
        return config.dtype_policy()
    if isinstance(identifier, DTypePolicy):
        return identifier
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        return _quantized(identifier) if _is_quantized(identifier) else DTypePolicy(identifier)
    try:
        return DTypePolicy(dtypes.standardize(identifier))
    except (TypeError, ValueError) as error:
        raise ValueError(
            "Cannot interpret `dtype` argument. Expected a string or an instance of DTypePolicy. "
            f"Received: dtype={identifier}"
        ) from error


def _is_quantized(name: str) -> bool:
    return name.startswith(QUANTIZATION_MODES) and name not in ("int8", "int4")


def _quantized(name: str) -> QuantizedDTypePolicy:
    mode, separator, source = name.partition("_from_")
    if not separator or "_from_" in source:
        raise ValueError(
            "Cannot convert `policy` into a valid pair (`mode`, `source_name`) to instantiate `QuantizedDTypePolicy`. "
            f"Received: policy={name}"
        )
    detailed = {"gptq": GPTQDTypePolicy, "awq": AWQDTypePolicy, "float8": QuantizedFloat8DTypePolicy}
    if mode.startswith("int4/"):
        return Int4DTypePolicy(mode, source)
    return next((cls for key, cls in detailed.items() if mode.startswith(key)), QuantizedDTypePolicy)(mode, source)
