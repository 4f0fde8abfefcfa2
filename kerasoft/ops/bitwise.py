"""Ops on the bits of integers (and of booleans)."""

from __future__ import annotations

from typing import Any

from .dispatch import kernel, public, tensor

__all__ = [
    "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "left_shift", "right_shift",
]  # fmt: skip


def _bits(name: str, class_name: str, text: str, kernel_name: str | None = None) -> Any:
    def function(x: Any, y: Any) -> Any:
        return kernel(kernel_name or name)(tensor(x), tensor(y))

    function.__name__ = function.__qualname__ = name
    function.__doc__, function.__module__ = text, __name__
    return public("numpy", class_name, "x y")(function)


bitwise_and = _bits("bitwise_and", "BitwiseAnd", "The bits set in both.")
bitwise_or = _bits("bitwise_or", "BitwiseOr", "The bits set in one or both.")
bitwise_xor = _bits("bitwise_xor", "BitwiseXor", "The bits set in exactly one.")
left_shift = _bits("left_shift", "LeftShift", "x with its bits moved up by y places.")
right_shift = _bits("right_shift", "RightShift", "x with its bits moved down by y places; the sign stays.")
bitwise_left_shift = _bits(
    "bitwise_left_shift", "BitwiseLeftShift", "x with its bits moved up by y places.", "left_shift"
)
bitwise_right_shift = _bits(
    "bitwise_right_shift", "BitwiseRightShift", "x with its bits moved down by y places; the sign stays.", "right_shift"
)


@public("numpy", "BitwiseInvert")
def bitwise_invert(x: Any) -> Any:
    """x with all bits exchanged.

    >>> bitwise_invert([0, 5]).tolist()
    [-1, -6]
    """
    return kernel("invert")(tensor(x))


@public("numpy", "BitwiseNot")
def bitwise_not(x: Any) -> Any:
    """x with all bits exchanged."""
    return kernel("invert")(tensor(x))
