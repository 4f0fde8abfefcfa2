"""Names for objects: what `get`, `serialize` and `deserialize` of initializers, regularizers, ... have in common.

An object is named by a string (``"glorot_uniform"``, ``"GlorotUniform"``), by its config
``{"module", "class_name", "config", "registered_name"}``, by its class, or it is given itself.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def snake_case(name: str) -> str:
    """`name` of a class as Keras writes it in lower case.

    >>> snake_case("GlorotUniform"), snake_case("L1L2"), snake_case("PReLU")
    ('glorot_uniform', 'l1l2', 'p_re_lu')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


class Family:
    """The classes of one kind and their names.

    Args:
        kind: what messages call one of them, e.g. ``"initializer"``.
        module: module written into configs, e.g. ``"keras.initializers"``.
        classes: the built-in classes.
        aliases: further names.
    """

    def __init__(self, kind: str, module: str, classes: Iterable[type], aliases: Mapping[str, type] | None = None):
        self.kind, self.module = kind, module
        self.names: dict[str, Any] = {}
        for cls in classes:
            self.names[cls.__name__] = self.names[snake_case(cls.__name__)] = cls
        self.names.update(aliases or {})

    def get(self, identifier: Any) -> Any:
        """The object meant by `identifier`; None stays None.

        Raises:
            ValueError: nothing is known under this name, or `identifier` is neither name, config nor callable.
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
            raise ValueError(f"Could not interpret {self.kind} identifier: {identifier}")
        return found

    def find(self, name: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The class or function called `name`, or None."""
        return registered_object(name, custom_objects) or self.names.get(name)

    def serialize(self, instance: Any) -> Any:
        """The config of `instance`: what `deserialize` reads; None stays None."""
        return serialize(instance, self.module)

    def deserialize(self, config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The object that `config` (a dict of `serialize`, or a name) describes.

        Raises:
            ValueError: `config` names no known class.
        """
        if config is None:
            return None
        if isinstance(config, str):
            config = {"class_name": config, "config": {}}
        name, given = config["class_name"], config.get("config")
        if name == "function":
            name = given
        found = self.find(config.get("registered_name") or name, custom_objects) or self.find(name, custom_objects)
        if found is None:
            raise ValueError(
                f"Could not interpret {self.kind} identifier: {name}. A class of your own must be registered with "
                "kerasoft.saving.register_keras_serializable or given in custom_objects."
            )
        if not inspect.isclass(found):
            return found
        return found.from_config(given or {}) if hasattr(found, "from_config") else found(**(given or {}))


def serialize(instance: Any, module: str) -> Any:
    """Keras's config of an object of ours, a registered one, or a plain function.

    Raises:
        ValueError: the object has no `get_config`.
    """
    if instance is None or isinstance(instance, (bool, int, float, str)):
        return instance
    if inspect.isfunction(instance):
        name = registered_name(instance) or instance.__name__
        return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}
    if not hasattr(instance, "get_config"):
        raise ValueError(
            f"Cannot serialize object {instance} of type {type(instance).__name__}: it has no get_config()."
        )
    cls = type(instance)
    own = cls.__module__.partition(".")[0] == "kerasoft"
    name = registered_name(cls) or (None if own else cls.__name__)
    return {
        "module": module if own else cls.__module__,
        "class_name": cls.__name__,
        "config": instance.get_config(),
        "registered_name": name,
    }


def registered_object(name: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The user's class or function known as `name` (``package>Name``), or None."""
    from .saving.registration import get_registered_object

    return get_registered_object(name, dict(custom_objects or {})) if isinstance(name, str) else None


def registered_name(target: Callable) -> str | None:
    """The name under which a user's class or function is registered, or None."""
    from .saving.registration import get_custom_objects, get_registered_name

    name = get_registered_name(target)
    return name if get_custom_objects().get(name) is target else None
