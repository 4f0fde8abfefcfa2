"""Settings that hold for the whole process: default dtypes, image layout, logging, limits for quick trials."""

from __future__ import annotations

import os
from typing import Any

_values: dict[str, Any] = {
    "floatx": "float32",
    "epsilon": 1e-7,
    "image_data_format": "channels_last",
    "dtype_policy": None,
    "flash_attention": None,
    "interactive_logging": True,
    "traceback_filtering": True,
    "unsafe_deserialization": False,
    "max_epochs": None,
    "max_steps_per_epoch": None,
}
for _limit in ("max_epochs", "max_steps_per_epoch"):
    if os.environ.get(f"KERAS_{_limit.upper()}"):
        _values[_limit] = int(os.environ[f"KERAS_{_limit.upper()}"])

_FLOATS = ("bfloat16", "float16", "float32", "float64")
_LAYOUTS = ("channels_first", "channels_last")


def backend() -> str:
    """What computes: always "jax", the name that Keras has for it."""
    return "jax"


def set_backend(backend: str) -> None:
    """
    Raises:
        ValueError: another backend than "jax".
    """
    if backend != "jax":
        raise ValueError(f"kerasoft computes with JAX/XLA alone; there is no backend {backend!r}.")


# --- dtypes -----------------------------------------------------------------------------------------------------------


def floatx() -> str:
    """The dtype of weights and of Python floats.

    >>> floatx()
    'float32'
    """
    return _values["floatx"]


def set_floatx(value: str) -> None:
    """Sets the default float dtype.

    Raises:
        ValueError: none of bfloat16, float16, float32, float64.
    """
    if value not in _FLOATS:
        raise ValueError(f"Unknown `floatx` value: {value}. Expected one of {set(_FLOATS)}")
    _values["floatx"] = str(value)


def dtype_policy() -> Any:
    """The default dtype policy; made of `floatx` at first use."""
    if _values["dtype_policy"] is None:
        from .dtype_policies import DTypePolicy

        _values["dtype_policy"] = DTypePolicy(floatx())
    return _values["dtype_policy"]


def set_dtype_policy(policy: Any) -> None:
    """Sets the policy of layers that are given no dtype.

    Args:
        policy: a name such as "mixed_bfloat16", or a `DTypePolicy`.

    Raises:
        ValueError: neither.

    >>> import kerasoft as ks
    >>> set_dtype_policy("mixed_bfloat16")
    >>> ks.layers.Dense(1).compute_dtype
    'bfloat16'
    >>> set_dtype_policy("float32")
    """
    from . import dtype_policies

    if not isinstance(policy, (str, dtype_policies.DTypePolicy)):
        raise ValueError(
            "Invalid `policy` argument. Expected the string name of a policy (such as 'mixed_float16') or a "
            f"`DTypePolicy` instance. Received: policy={policy} (of type {type(policy)})"
        )
    _values["dtype_policy"] = dtype_policies.get(policy)


def epsilon() -> float:
    """The small number that keeps quotients and logarithms finite."""
    return _values["epsilon"]


def set_epsilon(value: float) -> None:
    _values["epsilon"] = value


# --- images -----------------------------------------------------------------------------------------------------------


def image_data_format() -> str:
    """ "channels_last" or "channels_first": where layers without `data_format` expect the channels."""
    return _values["image_data_format"]


def set_image_data_format(data_format: str) -> None:
    """
    Raises:
        ValueError: neither "channels_first" nor "channels_last".
    """
    _values["image_data_format"] = standardize_data_format(str(data_format))


def standardize_data_format(data_format: str | None) -> str:
    """The layout in lower case; None is the default.

    Raises:
        ValueError: no layout.
    """
    if data_format is None:
        return image_data_format()
    data_format = str(data_format).lower()
    if data_format not in _LAYOUTS:
        raise ValueError(
            "The `data_format` argument must be one of {'channels_first', 'channels_last'}. "
            f"Received: data_format={data_format}"
        )
    return data_format


# --- switches ---------------------------------------------------------------------------------------------------------


def enable_flash_attention() -> None:
    """Accepted; XLA chooses how attention is computed."""
    _values["flash_attention"] = None


def disable_flash_attention() -> None:
    _values["flash_attention"] = False


def is_flash_attention_enabled() -> Any:
    """False if disabled, else None: it depends on the backend."""
    return _values["flash_attention"]


def is_nnx_enabled() -> bool:
    return False


def enable_interactive_logging() -> None:
    """`verbose="auto"` shows a live line."""
    _values["interactive_logging"] = True


def disable_interactive_logging() -> None:
    """`verbose="auto"` shows one line an epoch."""
    _values["interactive_logging"] = False


def is_interactive_logging_enabled() -> bool:
    return _values["interactive_logging"]


def enable_traceback_filtering() -> None:
    """Accepted; errors name the user's line in either case."""
    _values["traceback_filtering"] = True


def disable_traceback_filtering() -> None:
    _values["traceback_filtering"] = False


def is_traceback_filtering_enabled() -> bool:
    return _values["traceback_filtering"]


def enable_unsafe_deserialization() -> None:
    """Lets objects that run code of a file be read, as with ``safe_mode=False``."""
    _values["unsafe_deserialization"] = True


def is_unsafe_deserialization_enabled() -> bool:
    return _values["unsafe_deserialization"]


# --- kernels ----------------------------------------------------------------------------------------------------------


def kernels() -> dict[str, str]:
    """Lowerings that are fixed by hand, by name of op; see `set_kernels`."""
    from .compiler.kernels import settings

    return settings.forced()


def set_kernels(kernels: Any) -> None:
    """Fixes how ops are computed, for everything compiled from now on (also by KERASOFT_KERNELS).

    Args:
        kernels: {op: lowering} or the text "op=lowering,...", where "*" stands for all ops, e.g. "conv=onednn,lstm=xla" or
            "*=xla". An op's lowering that cannot compute some shape leaves that shape to XLA. None: as in the environment.

    Raises:
        ValueError: a text that is no such list. An unknown lowering is an error when a model is compiled.

    >>> set_kernels("*=xla")
    >>> kernels()
    {'*': 'xla'}
    >>> set_kernels(None)
    """
    from .compiler.kernels import settings

    settings.force(kernels)


def kernel_measuring() -> float:
    """Seconds that an executable may spend on measuring kernels; see `set_kernel_measuring`."""
    from .compiler.kernels import settings

    return settings.budget_s()


def set_kernel_measuring(seconds: Any) -> None:
    """How long the compiler may measure which kernels are fastest here, when a model is first compiled for a batch size.

    What was measured is kept under ~/.cache/kerasoft (or $XDG_CACHE_HOME) and never measured again.

    Args:
        seconds: for each executable (also by KERASOFT_MEASURE); 0 or False: no measuring, the shipped rules decide, whatever
            was measured earlier. True: 1.5 seconds, the default. None: as in the environment.

    Raises:
        ValueError: no number, or less than 0.

    >>> set_kernel_measuring(0)
    >>> kernel_measuring()
    0.0
    >>> set_kernel_measuring(None)
    """
    from .compiler.kernels import settings

    settings.set_budget_s(seconds)


# --- limits for quick trials ------------------------------------------------------------------------------------------


def max_epochs() -> int | None:
    """Most epochs of any `fit`; None: as many as it says."""
    return _values["max_epochs"]


def set_max_epochs(max_epochs: int | None) -> None:
    """Limits the epochs of every `fit` (also by the environment variable KERAS_MAX_EPOCHS)."""
    _values["max_epochs"] = max_epochs


def max_steps_per_epoch() -> int | None:
    """Most steps of an epoch of any `fit`, and of `evaluate` and `predict`."""
    return _values["max_steps_per_epoch"]


def set_max_steps_per_epoch(max_steps_per_epoch: int | None) -> None:
    """Limits the steps of every epoch (also by the environment variable KERAS_MAX_STEPS_PER_EPOCH)."""
    _values["max_steps_per_epoch"] = max_steps_per_epoch
