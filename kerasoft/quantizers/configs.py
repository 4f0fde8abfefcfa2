"""The settings of `quantize`: one class a mode."""

from __future__ import annotations

from typing import Any

from ..dtype_policies import QUANTIZATION_MODES
from .maximum import AbsMaxQuantizer


class QuantizationConfig:
    """What quantises weights and activations; the base of the modes' settings."""

    def __init__(self, weight_quantizer: Any = None, activation_quantizer: Any = None):
        self.weight_quantizer, self.activation_quantizer = weight_quantizer, activation_quantizer

    @property
    def mode(self) -> str:
        raise NotImplementedError(
            "Subclasses must implement this property. Do not instantiate QuantizationConfig directly."
        )

    def get_config(self) -> dict[str, Any]:
        from ..saving.serialization import serialize_keras_object

        names = ("weight_quantizer", "activation_quantizer")
        return {name: serialize_keras_object(getattr(self, name)) for name in names}

    @classmethod
    def from_config(cls, config: dict) -> Any:
        from ..saving.serialization import deserialize_keras_object

        return cls(**{name: deserialize_keras_object(value) for name, value in config.items()})

    @staticmethod
    def weight_quantizer_or_default(config: Any, default: Any) -> Any:
        return config.weight_quantizer if config is not None and config.weight_quantizer is not None else default

    @staticmethod
    def activation_quantizer_or_default(config: Any, default: Any) -> Any:
        return default if config is None else config.activation_quantizer


class Int8QuantizationConfig(QuantizationConfig):
    """int8 weights, one scale a channel.

    Args:
        weight_quantizer: an int8 quantizer; `AbsMaxQuantizer` by default.
        activation_quantizer: ``"default"``, a quantizer, or None: activations stay floats.
    """

    def __init__(self, weight_quantizer: Any = None, activation_quantizer: Any = "default"):
        default = isinstance(activation_quantizer, str) and activation_quantizer == "default"
        super().__init__(weight_quantizer, AbsMaxQuantizer() if default else activation_quantizer)
        if weight_quantizer is not None and weight_quantizer.output_dtype != "int8":
            raise ValueError(
                "Int8QuantizationConfig requires a weight_quantizer with output_dtype='int8'. Received: "
                f"output_dtype={weight_quantizer.output_dtype}"
            )

    @property
    def mode(self) -> str:
        return "int8"


class Int4QuantizationConfig(QuantizationConfig):
    """4-bit weights, two in a byte.

    Args:
        activation_quantizer: a quantizer; by default activations stay floats.
        block_size: how many inputs share a scale; None or -1: all, one scale a channel.
    """

    def __init__(
        self, weight_quantizer: Any = None, activation_quantizer: Any = "default", block_size: int | None = 128
    ):
        default = isinstance(activation_quantizer, str) and activation_quantizer == "default"
        super().__init__(weight_quantizer, None if default else activation_quantizer)
        if block_size is not None and block_size != -1 and block_size <= 0:
            raise ValueError(f"block_size must be None, -1, or a positive integer. Received: block_size={block_size}")
        self.block_size = block_size
        if block_size is not None and block_size > 0 and (self.weight_quantizer or self.activation_quantizer):
            raise ValueError(
                "Int4 sub-channel quantization (block_size > 0) does not support custom quantizers. Either set block_size "
                "to None or -1 for per-channel quantization, or remove the custom quantizer arguments. "
                f"Received: block_size={block_size}"
            )
        if weight_quantizer is not None:
            for name, wanted in (("value_range", (-8, 7)), ("output_dtype", "int8")):
                got = getattr(weight_quantizer, name)
                if (tuple(got) if isinstance(got, list) else got) != wanted:
                    raise ValueError(
                        f"Int4QuantizationConfig requires a weight_quantizer with {name}={wanted!r}. "
                        f"Received: {name}={got}"
                    )

    @property
    def mode(self) -> str:
        return "int4"

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "block_size": self.block_size}

    @classmethod
    def from_config(cls, config: dict) -> Any:
        return super().from_config({"block_size": None, **config})


class Float8QuantizationConfig(QuantizationConfig):
    """float8 training, which kerasoft does not do; kept for configs."""

    def __init__(self) -> None:
        super().__init__(None, None)

    @property
    def mode(self) -> str:
        return "float8"

    def get_config(self) -> dict[str, Any]:
        return {}


class _Calibrated(QuantizationConfig):
    """Settings of a method that needs sample texts; kept for configs."""

    _saved: tuple[str, ...] = ()

    def _set(self, **settings: Any) -> None:
        for name, value in settings.items():
            setattr(self, name, value)
        self._saved = tuple(settings)
        for name in ("num_samples", "sequence_length", "num_grid_points"):
            if settings.get(name, 1) <= 0:
                raise ValueError(f"{name} must be a positive integer.")
        if settings["group_size"] < -1 or settings["group_size"] == 0:
            raise ValueError(
                "Invalid group_size. Supported values are -1 (whole-tensor) or a positive integer, "
                f"but got {settings['group_size']}."
            )

    def get_config(self) -> dict[str, Any]:
        return {"dataset": None, "tokenizer": None, **{name: getattr(self, name) for name in self._saved}}

    @classmethod
    def from_config(cls, config: dict) -> Any:
        return cls(**config)

    def dtype_policy_string(self) -> str:
        return f"{self.mode}/{self.weight_bits}/{self.group_size}"  # type: ignore[attr-defined]


class GPTQConfig(_Calibrated):
    """Settings of GPTQ, which kerasoft does not do; kept for configs."""

    def __init__(
        self,
        dataset: Any,
        tokenizer: Any,
        *,
        weight_bits: int = 4,
        num_samples: int = 128,
        per_channel: bool = True,
        sequence_length: int = 512,
        hessian_damping: float = 0.01,
        group_size: int = 128,
        symmetric: bool = False,
        activation_order: bool = False,
        quantization_layer_structure: dict | None = None,
    ):
        super().__init__()
        if weight_bits not in (2, 3, 4, 8):
            raise ValueError(f"Unsupported weight_bits {weight_bits}. Supported values are 2, 3, 4, and 8.")
        if not 0 <= hessian_damping <= 1:
            raise ValueError("hessian_damping must be between 0 and 1.")
        self.dataset, self.tokenizer = dataset, tokenizer
        self._set(
            weight_bits=weight_bits,
            num_samples=num_samples,
            per_channel=per_channel,
            sequence_length=sequence_length,
            hessian_damping=hessian_damping,
            group_size=group_size,
            symmetric=symmetric,
            activation_order=activation_order,
            quantization_layer_structure=quantization_layer_structure,
        )

    @property
    def mode(self) -> str:
        return "gptq"


class AWQConfig(_Calibrated):
    """Settings of AWQ, which kerasoft does not do; kept for configs."""

    def __init__(
        self,
        dataset: Any,
        tokenizer: Any,
        *,
        weight_bits: int = 4,
        num_samples: int = 128,
        sequence_length: int = 512,
        group_size: int = 128,
        num_grid_points: int = 20,
        quantization_layer_structure: dict | None = None,
    ):
        super().__init__()
        if weight_bits != 4:
            raise ValueError(f"AWQ only supports 4-bit quantization. Received weight_bits={weight_bits}.")
        self.dataset, self.tokenizer = dataset, tokenizer
        self._set(
            weight_bits=weight_bits,
            num_samples=num_samples,
            sequence_length=sequence_length,
            group_size=group_size,
            num_grid_points=num_grid_points,
            quantization_layer_structure=quantization_layer_structure,
        )

    @property
    def mode(self) -> str:
        return "awq"


def resolve(mode: Any, config: Any) -> QuantizationConfig:
    """The settings for a mode or for settings.

    Raises:
        ValueError: an unknown mode, neither of both, or two that contradict.
        NotImplementedError: a mode that kerasoft does not have.
    """
    if isinstance(config, str):
        mode, config = config, None
    if isinstance(mode, QuantizationConfig) and config is None:
        mode, config = None, mode
    if mode is not None and mode not in QUANTIZATION_MODES:
        raise ValueError(f"Invalid quantization mode. Expected one of {QUANTIZATION_MODES}. Received: mode={mode}")
    if config is not None and not isinstance(config, QuantizationConfig):
        raise ValueError(
            "Argument `config` must be an instance of `QuantizationConfig`. "
            f"Received: config={config} (of type {type(config)})"
        )
    if config is None:
        if mode is None:
            raise ValueError("You must provide either `mode` or `config` to `quantize`.")
        if mode in ("gptq", "awq"):
            name = {"gptq": "a `GPTQConfig`", "awq": "an `AWQConfig`"}[mode]
            raise ValueError(f"For {mode.upper()}, you must pass {name} object in the `config` argument.")
        config = {"int8": Int8QuantizationConfig, "int4": Int4QuantizationConfig, "float8": Float8QuantizationConfig}[
            mode
        ]()
    if mode is not None and config.mode != mode:
        raise ValueError(f"Contradictory arguments: mode='{mode}' but config.mode='{config.mode}'")
    if config.mode not in ("int8", "int4"):
        raise NotImplementedError(
            f"kerasoft does not quantize with mode '{config.mode}': it has 'int8' and 'int4'. Quantize with one of these, "
            "or in Keras."
        )
    return config
