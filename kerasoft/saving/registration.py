"""Custom objects: classes and functions of users, found by name when a config is read."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterator
from typing import Any

_objects: dict[str, Any] = {}
_names: dict[Any, str] = {}
_scoped: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("custom_objects", default=None)


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable:
    """Makes a class or function known as ``package>name``, in configs and when reading them.

    >>> import kerasoft as ks
    >>> @ks.saving.register_keras_serializable("demo")
    ... class Twice(ks.Layer):
    ...     def call(self, x):
    ...         return x * 2
    >>> ks.saving.get_registered_name(Twice)
    'demo>Twice'
    """

    def decorate(target: Any) -> Any:
        registered = f"{package}>{name if name is not None else target.__name__}"
        if inspect.isclass(target) and not hasattr(target, "get_config"):
            raise ValueError(
                "Cannot register a class that does not have a get_config() method: it could not be saved. "
                f"Received: {target}"
            )
        _objects[registered] = target
        _names[target] = registered
        return target

    return decorate


def get_custom_objects() -> dict[str, Any]:
    """The registered objects by name; may be added to."""
    return _objects


def get_registered_name(target: Any) -> str:
    """The name under which `target` is registered, else its own."""
    return _names.get(target) or target.__name__


def get_registered_object(name: str, custom_objects: dict | None = None) -> Any:
    """The object known as `name`: in `custom_objects`, in the open `custom_object_scope`, or registered; else None."""
    for place in (custom_objects or {}, _scoped.get() or {}, _objects):
        if name in place:
            return place[name]
    return None


@contextlib.contextmanager
def custom_object_scope(custom_objects: dict[str, Any] | None) -> Iterator[None]:
    """Names that are known inside.

    >>> import kerasoft as ks
    >>> class Ours(ks.Layer):
    ...     pass
    >>> config = {"module": None, "class_name": "Ours", "config": {"name": "a"}, "registered_name": "Ours"}
    >>> with ks.saving.custom_object_scope({"Ours": Ours}):
    ...     ks.saving.deserialize_keras_object(config).name
    'a'
    """
    token = _scoped.set({**(_scoped.get() or {}), **(custom_objects or {})})
    try:
        yield
    finally:
        _scoped.reset(token)
