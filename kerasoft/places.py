"""Keras' scopes for names and devices, and the version."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from . import naming


class name_scope:  # noqa: N801 Keras' name
    """Variables made inside have `name` in their path.

    >>> import kerasoft as ks
    >>> with ks.name_scope("encoder"):
    ...     ks.Variable([1.0], name="gain").path
    'encoder/gain'
    """

    def __init__(self, name: str, **kwargs: Any):
        if not isinstance(name, str) or "/" in name:
            raise ValueError(
                f"Argument `name` must be a string and cannot contain character `/`. Received: name={name}"
            )
        self.name = name
        self._scope: Any = None

    def __enter__(self) -> name_scope:
        self._scope = naming.name_scope(self.name)
        self._scope.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._scope.__exit__(*error)


@contextlib.contextmanager
def device(device_name: str) -> Iterator[None]:
    """Accepted: there are CPUs only, and XLA uses all of their cores.

    Raises:
        ValueError: a device that is no CPU.
    """
    if not isinstance(device_name, str):
        raise ValueError(
            "Invalid value for argument `device_name`. Expected a string like 'cpu:0'. "
            f"Received: device_name='{device_name}'"
        )
    if not device_name.lower().startswith("cpu"):
        raise ValueError(f"kerasoft computes on CPUs; there is no device {device_name!r}. Leave the scope out.")
    yield


def version() -> str:
    """The version of kerasoft."""
    from . import __version__

    return __version__
