"""Configs: objects as JSON in Keras's form, ``{"module", "class_name", "config", "registered_name"}``.

Reading a config runs no code of the file: classes are looked up by name among those of kerasoft and those that the user
registered; a marshalled lambda is refused.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import inspect
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import config as settings
from .. import dtype_policies
from ..dtype_policies import DTypePolicy
from ..errors import ConfigError, KerasoftError, UnknownClassError, UnsafeFileError
from ..tensors import KerasTensor
from .registration import custom_object_scope, get_custom_objects, get_registered_name, get_registered_object

_PLAIN = (str, int, float, bool, type(None))
_PUBLIC = (
    "layers", "initializers", "regularizers", "constraints", "optimizers", "optimizers.schedules", "losses", "metrics",
    "models", "activations", "random", "quantizers", "utils", "distillation",
)  # fmt: skip
_shared: contextvars.ContextVar[dict[Any, Any] | None] = contextvars.ContextVar("shared", default=None)
_written: contextvars.ContextVar[dict[int, Any] | None] = contextvars.ContextVar("written", default=None)
_safe: contextvars.ContextVar[bool | None] = contextvars.ContextVar("safe", default=None)
_IN_APPLICATIONS = ("CustomScaleLayer", "LayerScale", "StochasticDepth")  # Keras knows them by their private modules
_MODELS = {"Sequential": "keras", "Model": "keras", "Functional": "keras.src.models.functional"}


def serialize_keras_object(obj: Any) -> Any:
    """`obj` as JSON-ready data.

    Raises:
        SerializationError: an object without `get_config`, or a lambda.
    """
    if isinstance(obj, bool) or obj is None or isinstance(obj, str):
        return obj
    if isinstance(obj, np.generic):
        return obj.item()
    if isinstance(obj, _PLAIN):
        return obj
    if isinstance(obj, (list, tuple)):
        items = [serialize_keras_object(x) for x in obj]
        return tuple(items) if isinstance(obj, tuple) else items
    if isinstance(obj, dict):
        return {key: serialize_keras_object(value) for key, value in obj.items()}
    if isinstance(obj, bytes):
        return {"class_name": "__bytes__", "config": {"value": obj.decode("utf-8")}}
    if isinstance(obj, slice):
        parts = {name: serialize_keras_object(getattr(obj, name)) for name in ("start", "stop", "step")}
        return {"class_name": "__slice__", "config": parts}
    if obj is Ellipsis:
        return {"class_name": "__ellipsis__", "config": {}}
    if isinstance(obj, KerasTensor):
        history = obj.history and [obj.history.operation.name, *obj.history[1:]]
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": obj.shape, "dtype": obj.dtype, "keras_history": history},
        }
    if isinstance(obj, np.ndarray):
        if obj.ndim == 0:
            return obj.item()
        return {"class_name": "__numpy__", "config": {"value": obj.tolist(), "dtype": obj.dtype.name}}
    if isinstance(obj, np.dtype):
        return obj.name
    if isinstance(obj, DTypePolicy):
        kind = type(obj).__name__
        module = "keras" if kind in ("DTypePolicy", "FloatDTypePolicy") else "keras.dtype_policies"
        return {"module": module, "class_name": kind, "config": obj.get_config(), "registered_name": None}
    if hasattr(obj, "__array__") and not hasattr(obj, "get_config"):
        value = np.asarray(obj)
        return {"class_name": "__tensor__", "config": {"value": value.tolist(), "dtype": value.dtype.name}}
    if isinstance(obj, (types.FunctionType, types.BuiltinFunctionType)):
        return _serialize_function(obj)
    if inspect.isclass(obj):
        raise ConfigError(f"cannot serialize the class {obj.__name__}; give an instance of it")
    return _serialize_instance(obj)


def _serialize_function(function: Any) -> dict:
    if function.__name__ == "<lambda>":
        raise ConfigError(
            "cannot save a lambda: reading it back would run code from the file. Use a named function and register it "
            "with kerasoft.saving.register_keras_serializable()."
        )
    name = get_registered_name(function)
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}


def _serialize_instance(obj: Any) -> dict:
    if not hasattr(obj, "get_config"):
        raise ConfigError(
            f"Cannot serialize object {obj} of type {type(obj)}. To be serializable, a class must implement the "
            "`get_config()` method."
        )
    config = obj.get_config()
    if not isinstance(config, dict):
        raise ConfigError(f"The `get_config()` method of {obj} should return a dict. It returned: {config}")
    data = {**class_reference(type(obj)), "config": serialize_keras_object(config)}
    made = {key: data[key] for key in ("module", "class_name", "config", "registered_name")}
    for key, getter in (("build_config", "get_build_config"), ("compile_config", "get_compile_config")):
        found = getattr(obj, getter)() if hasattr(obj, getter) else None
        if found is not None:
            made[key] = serialize_keras_object(found)
    written = _written.get()
    if written is not None:
        made["shared_object_id"] = written.setdefault(id(obj), (len(written), obj))[0]
    return made


def class_reference(cls: type) -> dict[str, Any]:
    """``{"module", "class_name", "registered_name"}`` of a class, with Keras's module names for ours."""
    entry = getattr(cls, "entry", None)
    if entry is not None:
        return {"module": entry.module, "class_name": entry.class_name, "registered_name": entry.class_name}
    name = cls.__name__
    if cls.__module__.startswith("kerasoft."):
        named = getattr(cls, "keras_module", None)
        if named:
            return {"module": named, "class_name": name, "registered_name": name if ".src." in named else None}
        if name in _MODELS:
            registered = name if name == "Functional" else None
            return {"module": _MODELS[name], "class_name": name, "registered_name": registered}
        if name in _IN_APPLICATIONS:
            module = cls.__module__.replace("kerasoft.", "keras.src.", 1)
            return {"module": module, "class_name": name, "registered_name": name}
        public = public_module(cls)
        if public:
            return {"module": public, "class_name": _public_name(cls, public), "registered_name": None}
    module = None if cls.__module__ in ("__main__", "builtins") else cls.__module__
    return {"module": module, "class_name": name, "registered_name": get_registered_name(cls)}


def _public_name(cls: type, public: str) -> str:
    """The name of a class in its public module: GroupQueryAttention for the class GroupedQueryAttention."""
    module = importlib.import_module(f"kerasoft.{public.removeprefix('keras.')}")
    names = getattr(module, "__all__", ())
    if cls.__name__ in names:
        return cls.__name__
    return next((n for n in names if getattr(module, n, None) is cls), cls.__name__)


def public_module(target: Any) -> str | None:
    """The ``keras.*`` module under which a class or function of ours is public; None for those of users."""
    if not target.__module__.startswith("kerasoft."):
        return None
    for part in _PUBLIC:
        if target.__module__ == f"kerasoft.{part}" or target.__module__.startswith(f"kerasoft.{part}."):
            if part == "optimizers" and "schedule" in target.__module__:
                continue
            return f"keras.{part}"
    return None


# --- reading ------------------------------------------------------------------------------------------------------


def in_safe_mode() -> bool:
    """Whether code of a file must not be run: always, unless the user has asked for it."""
    asked = _safe.get()
    return not settings.is_unsafe_deserialization_enabled() if asked is None else asked


@contextlib.contextmanager
def safe_mode_scope(safe_mode: bool) -> Iterator[None]:
    """Inside, layers that bring code of their own are refused (True) or, if the user asked for it, allowed (False)."""
    token = _safe.set(bool(safe_mode) and not settings.is_unsafe_deserialization_enabled())
    try:
        yield
    finally:
        _safe.reset(token)


def deserialize_keras_object(config: Any, custom_objects: dict | None = None, safe_mode: bool = True, **_: Any) -> Any:
    """The object that `serialize_keras_object` made `config` of.

    Args:
        custom_objects: further classes and functions by name.
        safe_mode: False lets Lambda layers bring code of their own; byte code elsewhere is refused in any case.

    Raises:
        UnknownNameError: a class or function that is neither kerasoft's nor registered.
        UnsafeFileError: a marshalled lambda.
    """
    if not safe_mode and _safe.get() is None:
        with safe_mode_scope(False):
            return deserialize_keras_object(config, custom_objects)
    if custom_objects:
        with custom_object_scope(custom_objects):
            return deserialize_keras_object(config)
    if isinstance(config, (list, tuple)):
        return [deserialize_keras_object(x) for x in config]
    if isinstance(config, _PLAIN) or not isinstance(config, dict):
        return config
    if "class_name" not in config or "config" not in config:
        return {key: deserialize_keras_object(value) for key, value in config.items()}
    name, inner = config["class_name"], config["config"]
    if name in _SPECIAL:
        return _SPECIAL[name](inner)
    found = find(name, config.get("module"), config.get("registered_name"), inner)
    if name == "function" or not inspect.isclass(found):
        return found
    return _instance(found, config)


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Configs read inside that carry one ``shared_object_id`` give one object."""
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def serialize_with_shared_objects(obj: Any) -> Any:
    """As `serialize_keras_object`; configs of one object that stands in several places get one ``shared_object_id``."""
    token = _written.set({})
    try:
        config = serialize_keras_object(obj)
    finally:
        _written.reset(token)
    places: dict[int, list[dict]] = {}
    waiting = [config]
    while waiting:
        part = waiting.pop()
        inner = part.values() if isinstance(part, dict) else part
        waiting.extend(x for x in inner if isinstance(x, (dict, list, tuple)))
        if isinstance(part, dict) and isinstance(part.get("shared_object_id"), int):
            places.setdefault(part["shared_object_id"], []).append(part)
    for found in places.values():
        if len(found) == 1:
            del found[0]["shared_object_id"]
    return config


def _instance(cls: Any, config: dict) -> Any:
    shared, key = _shared.get(), config.get("shared_object_id")
    if shared is None or key is None:
        return _new_instance(cls, config)
    if key not in shared:
        shared[key] = _new_instance(cls, config)
    return shared[key]


def _new_instance(cls: Any, config: dict) -> Any:
    inner = config["config"] or {}
    if not isinstance(inner, dict):
        raise ConfigError(f"Expected 'config' to be a dict for {config['class_name']}, instead got {type(inner)}")
    if not hasattr(cls, "from_config"):
        raise ConfigError(
            f"Unable to reconstruct an instance of '{config['class_name']}' because the class is missing a "
            "`from_config()` method."
        )
    try:
        instance = cls.from_config(dict(inner))
    except KerasoftError:
        raise
    except TypeError as error:
        raise ConfigError(
            f"{cls.__name__} could not be made from its config {_short(inner)}: {error}. Each argument of its constructor must be "
            "in what `get_config()` returns. It could not be deserialized properly: objects (layers, models, ...) returned "
            "by `get_config()` must be deserialized in `from_config()`: "
            "please ensure that components that are Python object instances (layers, models, etc.) returned by "
            "`get_config()` are explicitly deserialized in the model's `from_config()` method."
        ) from error
    if config.get("build_config") and not instance.built:
        instance.build_from_config(config["build_config"])
        instance.built = True
    if config.get("compile_config") and hasattr(instance, "compile_from_config"):
        instance.compile_from_config(config["compile_config"])
    return instance


def _short(config: Any) -> str:
    text = repr(config)
    return text if len(text) <= 1000 else f"{text[:1000]}..."


def _revived_tensor(config: dict) -> KerasTensor:
    made = KerasTensor(config["shape"], config["dtype"], name="revived")
    made._keras_history = config["keras_history"]  # replaced by the real tensor when the graph is built
    return made


def _refuse_lambda(_: Any) -> Any:
    raise UnsafeFileError(
        "the file holds a Python lambda as byte code, which would have to be run to read it. kerasoft never does. "
        "Save the model with a registered function or layer in its place."
    )


_SPECIAL: dict[str, Any] = {
    "__bytes__": lambda c: c["value"].encode("utf-8"),
    "__slice__": lambda c: slice(*(deserialize_keras_object(c[k]) for k in ("start", "stop", "step"))),
    "__ellipsis__": lambda c: Ellipsis,
    "__numpy__": lambda c: np.array(c["value"], c["dtype"]),
    "__tensor__": lambda c: np.array(c["value"], c["dtype"]),
    "__keras_tensor__": _revived_tensor,
    "__lambda__": _refuse_lambda,
    "__typespec__": _refuse_lambda,
}


def find(name: str, module: str | None, registered_name: str | None, inner: Any = None) -> Any:
    """The class or function that a config refers to.

    Raises:
        UnknownNameError: there is none; says how to register one.
    """
    target = inner if name == "function" else name
    for known in (registered_name, target):
        found = get_registered_object(known) if isinstance(known, str) else None
        if found is not None:
            return found
    if name == "function" and not isinstance(inner, str):
        raise ConfigError(
            f"Expected 'config' to be a non-null str for a function, instead got {type(inner)}: {inner!r}"
        )
    found = _ours(str(target), module or "")
    if found is not None and registered_name not in (None, "", target, "function", getattr(found, "__name__", "")):
        raise ConfigError(
            f"'{target}' with registered_name={registered_name!r} resolved to a Keras built-in, whose registered name is "
            "its own. Register your class under a name of its own, or take registered_name out of the config."
        )
    if found is None and name == "function" and module == "builtins" and ">" not in str(target):
        found = _registered_without_package(str(target))  # as Keras 3.6 and older wrote them
    if found is None:
        kind = "function" if name == "function" else "class"
        raise UnknownClassError(
            f"Could not locate {kind} '{target}'"
            + (f" of module '{module}'" if module else "")
            + ". Make sure custom classes and functions are decorated with "
            "`@kerasoft.saving.register_keras_serializable()`. If they are already decorated, make sure they are all imported "
            "so that the decorator is run before trying to load them, or pass it in "
            f"`custom_objects={{'{target}': ...}}`."
        )
    return found


def _registered_without_package(name: str) -> Any:
    """A registered function known as ``package>name`` for some package."""
    return next((found for known, found in get_custom_objects().items() if known.endswith(f">{name}")), None)


def _ours(name: str, module: str) -> Any:
    """A public name of kerasoft, given Keras's or kerasoft's module."""
    if not name.isidentifier() or name.startswith("_"):
        return None
    top, _, rest = module.partition(".")
    if top not in ("keras", "kerasoft", "builtins", ""):
        return None
    if rest.startswith("src.ops") or rest.startswith("ops"):
        from .. import ops
        from ..ops.dispatch import ENTRIES

        entry = ENTRIES.get(name)
        return entry.operation if entry is not None else getattr(ops, name, None) if name in ops.__all__ else None
    if name in ("Sequential", "Model", "Functional"):
        from .. import models
        from ..models.functional import Functional

        return Functional if name == "Functional" else getattr(models, name)
    if name in dtype_policies.__all__:
        return getattr(dtype_policies, name)
    rest = rest.removeprefix("src.")
    if name == "FeatureSpace" or rest == "layers.preprocessing.feature_space":
        from ..layers.preprocessing import feature_space

        return getattr(feature_space, name, None)
    if rest.startswith("applications."):
        from .. import applications

        family = getattr(applications, rest.removeprefix("applications."), None)
        return getattr(family, name) if name in getattr(family, "__all__", ()) else None
    places = [p for p in _PUBLIC if rest == p or rest.startswith(f"{p}.")] or list(_PUBLIC)
    for place in sorted(places, key=len, reverse=True):
        try:
            found = getattr(importlib.import_module(f"kerasoft.{place}"), name, None)
        except ModuleNotFoundError:
            continue
        if found is not None and not inspect.ismodule(found):
            return found
    return None
