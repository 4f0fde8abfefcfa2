"""Configs in the form of Keras 2, ``{"class_name", "config"}``, which Keras keeps for old code."""

from __future__ import annotations

import inspect
from typing import Any

from ...saving import custom_object_scope, get_registered_name, get_registered_object


def serialize_keras_object(instance: Any) -> Any:
    """The class name and config of an object, or the name of a function.

    Raises:
        ValueError: it has neither a config nor a name.

    >>> import kerasoft as ks
    >>> serialize_keras_object(ks.initializers.Constant(2.0))
    {'class_name': 'Constant', 'config': {'value': 2.0}}
    """
    if instance is None:
        return None
    if hasattr(instance, "get_config"):
        return {"class_name": get_registered_name(type(instance)), "config": instance.get_config()}
    if hasattr(instance, "__name__"):
        return get_registered_name(instance)
    raise ValueError(
        f"Cannot serialize {instance} because it doesn't implement `get_config()`. Add such a method, or decorate its class "
        "with `@kerasoft.saving.register_keras_serializable()`."
    )


def deserialize_keras_object(
    identifier: Any,
    module_objects: dict | None = None,
    custom_objects: dict | None = None,
    printable_module_name: str = "object",
) -> Any:
    """The object of a class name and config, the function (or new object) of a name; other things as they are.

    Args:
        identifier: ``{"class_name", "config"}``, a name, an object or None.
        module_objects: what the names mean, by name.
        custom_objects: further meanings, which come first.
        printable_module_name: what is looked for, for messages.

    Raises:
        ValueError: a name without a meaning, or a dict of another form.
    """

    def find(name: str) -> Any:
        found = get_registered_object(name, custom_objects) or (module_objects or {}).get(name)
        if found is None:
            raise ValueError(
                f"Unknown {printable_module_name}: '{name}'. Please ensure you are using a `kerasoft.saving."
                "custom_object_scope` and that this object is included in the scope."
            )
        return found

    if isinstance(identifier, dict):
        if "class_name" not in identifier or "config" not in identifier:
            raise ValueError(
                f"Improper config format for {identifier}. Expecting python dict contains `class_name` and `config` as keys"
            )
        made = find(identifier["class_name"])
        if not hasattr(made, "from_config"):
            return made(**identifier["config"])
        with custom_object_scope(custom_objects):
            return made.from_config(identifier["config"])
    if isinstance(identifier, str):
        found = find(identifier)
        return found() if inspect.isclass(found) else found
    return identifier


__all__ = ["deserialize_keras_object", "serialize_keras_object"]
