"""Rematerialisation: Keras' names. What is kept for the backward pass is chosen by the compiler."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

MODES = ("full", "activations", "larger_than", "list_of_layers", None)


class RematScope:
    """Accepted: layers inside compute the same numbers; nothing is computed twice to save memory.

    Args:
        mode: "full", "activations", "larger_than", "list_of_layers" or None.
        output_size_threshold: for "larger_than".
        layer_names: for "list_of_layers".

    Raises:
        ValueError: another mode.
    """

    def __init__(self, mode: str | None = "full", output_size_threshold: int = 1024, layer_names: Any = None):
        if mode not in MODES:
            raise ValueError(
                f"Invalid mode '{mode}'. Supported modes are: 'full', 'activations', 'larger_than', 'list_of_layers', or "
                " None."
            )
        self.mode, self.output_size_threshold, self.layer_names = mode, output_size_threshold, layer_names or []

    def __enter__(self) -> RematScope:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def remat(f: Callable) -> Callable:
    """`f` itself: the same numbers; its intermediate results are kept as the compiler decides.

    >>> remat(lambda x: x + 1)(1)
    2
    """

    @functools.wraps(f)
    def same(*args: Any, **kwargs: Any) -> Any:
        return f(*args, **kwargs)

    return same
