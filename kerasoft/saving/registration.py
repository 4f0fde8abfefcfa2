"""Custom objects: classes and functions of users, found by name when a config is read."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable
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


def get_registered_name(obj: Any) -> str:
    """The name under which `obj` is registered, else its own."""
    return _names.get(obj) or obj.__name__


def get_registered_object(name: str, custom_objects: dict | None = None, module_objects: dict | None = None) -> Any:
    """The object known as `name`: in the open `custom_object_scope`, registered, or in one of the dicts; else None."""
    for place in (_scoped.get() or {}, _objects, custom_objects or {}, module_objects or {}):
        if name in place:
            return place[name]
    return None


class CustomObjectScope:
    """Names that are known inside.

    >>> import kerasoft as ks
    >>> class Ours(ks.Layer):
    ...     pass
    >>> config = {"module": None, "class_name": "Ours", "config": {"name": "a"}, "registered_name": "Ours"}
    >>> with ks.saving.custom_object_scope({"Ours": Ours}):
    ...     ks.saving.deserialize_keras_object(config).name
    'a'
    """

    def __init__(self, custom_objects: dict[str, Any] | None):
        self.custom_objects = custom_objects or {}
        self._tokens: list[Any] = []

    def __enter__(self) -> CustomObjectScope:
        self._tokens.append(_scoped.set({**(_scoped.get() or {}), **self.custom_objects}))
        return self

    def __exit__(self, *_: Any) -> None:
        _scoped.reset(self._tokens.pop())


custom_object_scope = CustomObjectScope
