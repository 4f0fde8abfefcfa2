"""Names for objects: what `get`, `serialize` and `deserialize` of initializers, regularizers, ... have in common.

An object is named by a string (``"glorot_uniform"``, ``"GlorotUniform"``), by its config
``{"module", "class_name", "config", "registered_name"}``, by its class, or it is given itself.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import UnknownNameError
from .naming import to_snake_case


class Family:
    """The classes of one kind and their names.

    Args:
        kind: what messages call one of them, e.g. ``"initializer"``.
        classes: the built-in classes.
        aliases: further names.
        functions: built-in functions that configs name and `get` does not.
    """

    def __init__(
        self,
        kind: str,
        classes: Iterable[type],
        aliases: Mapping[str, Any] | None = None,
        functions: Iterable[Callable] = (),
    ):
        self.kind = kind
        self.functions = {function.__name__: function for function in functions}
        self.names: dict[str, Any] = {}
        for cls in classes:
            self.names[cls.__name__] = self.names[to_snake_case(cls.__name__)] = cls
        self.names.update(aliases or {})

    def get(self, identifier: Any) -> Any:
        """The object meant by `identifier`; None stays None.

        Raises:
            UnknownNameError: nothing is known under this name, or `identifier` is neither name, config nor callable.
        """
        if identifier is None:
            return None
        found = identifier
        if isinstance(identifier, Mapping):
            found = self.deserialize(identifier)
        elif isinstance(identifier, str):
            found = self.find(identifier)
        if inspect.isclass(found):
            found = found()
        if not callable(found):
            raise self.unknown(identifier)
        return found

    def unknown(self, identifier: Any) -> UnknownNameError:
        """The error for an identifier that means nothing, with close names."""
        close = difflib.get_close_matches(identifier, sorted(self.names), 3) if isinstance(identifier, str) else []
        hint = (
            f"Did you mean {' or '.join(map(repr, close))}?" if close else "Give a known name, a config or a callable."
        )
        return UnknownNameError(f"Could not interpret {self.kind} identifier: {identifier}. {hint}")

    def find(self, name: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The class or function called `name`, or None."""
        return registered_object(name, custom_objects) or self.names.get(name)

    def serialize(self, instance: Any) -> Any:
        """The config of `instance`: what `deserialize` reads; None stays None."""
        from .saving.serialization import serialize_keras_object

        return serialize_keras_object(instance)

    def deserialize(self, config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The object that `config` (a dict of `serialize`, or a name) describes.

        Raises:
            ValueError: `config` names no known class.
        """
        if config is None:
            return None
        identifier = config if isinstance(config, Mapping) and "module" not in config else _name_of(config)
        if isinstance(config, str):
            config = {"class_name": config, "config": {}}
        name, given, function = config["class_name"], config.get("config"), None
        if name == "function":
            name, given, function = given, None, self.functions.get(given)
        found = (
            function
            or self.find(config.get("registered_name") or name, custom_objects)
            or self.find(name, custom_objects)
        )
        if found is None:
            raise ValueError(
                f"Could not interpret {self.kind} identifier: {identifier}. A class of your own must be registered with "
                "kerasoft.saving.register_keras_serializable or given in custom_objects."
            )
        if not inspect.isclass(found):
            return found
        return found.from_config(given or {}) if hasattr(found, "from_config") else found(**(given or {}))


def _name_of(config: Any) -> Any:
    return config["class_name"] if isinstance(config, Mapping) else config


def registered_object(name: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The user's class or function known as `name` (``package>Name``), or None."""
    from .saving.registration import get_registered_object

    return get_registered_object(name, dict(custom_objects or {})) if isinstance(name, str) else None


def registered_name(target: Callable) -> str | None:
    """The name under which a user's class or function is registered, or None."""
    from .saving.registration import get_custom_objects, get_registered_name

    name = get_registered_name(target)
    return name if get_custom_objects().get(name) is target else None
