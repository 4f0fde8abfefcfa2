"""Configs of Keras 2 and of whole-model `.h5` files as configs of Keras 3.

What differs: no module names, `inbound_nodes` as nested lists, `Sequential` as a bare list, `batch_input_shape` in place of
an Input, dtype policies as dicts, arguments that no longer exist.
"""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import SerializationError, UnsafeFileError
from .serialization import find

# Arguments of Keras 2 that say nothing about the numbers.
_GONE = {
    "batch_input_shape", "implementation", "input_dim", "input_dtype", "input_length", "ragged", "sparse", "time_major",
    "fn", "decay", "is_legacy_optimizer", "jit_compile", "output_shape_type", "module", "output_shape_module",
    "renorm", "fused", "virtual_batch_size", "experimental_autocast", "experimental_run_tf_function", "initial_decay",
    "initial_accumulator_value_", "ema_overwrite_frequency_", "kernel_initializer", "kernel_regularizer",
    "kernel_constraint", "batch_size",
}  # fmt: skip
_RENAMED = {"lr": "learning_rate", "p": "rate"}


def modern(config: Any) -> Any:
    """The config of a model, layer, loss or optimizer in today's form.

    Raises:
        UnsafeFileError: a Lambda layer whose function is byte code.
        SerializationError: a form that is not understood, or an argument that no longer exists and is set.
    """
    if not (isinstance(config, dict) and "class_name" in config and "config" in config):
        return config
    name = config["class_name"]
    if name in ("Model", "Functional") and _is_graph(config["config"]):
        return {**config, "class_name": "Functional", "config": _functional(config["config"])}
    if name == "Sequential":
        return {**config, "config": _sequential(config["config"])}
    if name == "Lambda":
        return {**config, "config": _lambda(config["config"])}
    if name == "InputLayer":
        return {**config, "config": _input_layer(config["config"])}
    if not isinstance(config["config"], dict) or name.startswith("__") or "module" in config:
        return config
    if "trainable" not in config["config"] and name in _operations():
        return {**config, "module": "keras.src.ops"}
    if "trainable" in config["config"]:  # a layer, not the initializer of the same name
        config = {**config, "module": "keras.layers"}
    return {**config, "config": _arguments(name, config)}


def _operations() -> Any:
    """Ops that a functional model may hold; layers of the same name have `trainable` in their configs."""
    from ..ops.dispatch import ENTRIES

    return ENTRIES


def _is_graph(config: Any) -> bool:
    return isinstance(config, dict) and {"layers", "input_layers", "output_layers"} <= set(config)


def _arguments(name: str, config: dict) -> dict:
    made = {}
    known = _known_arguments(name, config)
    for key, value in config["config"].items():
        key = _RENAMED.get(key, key) if known is not None and key not in known else key
        if known is not None and key not in known and key not in ("name", "trainable", "dtype"):
            if key in _GONE or value in (None, False, "", [], 0):
                continue
            raise SerializationError(
                f"{name} of the file has the argument {key}={value!r}, which today's {name} does not have"
            )
        made[key] = _value(key, value)
    if name in ("GRU", "GRUCell") and "reset_after" not in made:
        made["reset_after"] = False  # Keras before 2.2 had no other form
    if made.get("reduction") == "auto":
        made["reduction"] = "sum_over_batch_size"
    return made


def _known_arguments(name: str, config: dict) -> set[str] | None:
    """The constructor's arguments; None when it takes any (or is the user's own)."""
    cls = find(name, config.get("module"), config.get("registered_name"))
    if not inspect.isclass(cls) or not cls.__module__.startswith("kerasoft."):
        return None
    names: set[str] = set()
    for base in cls.__mro__:
        if base is object or "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {p.name for p in parameters}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self", "kwargs"}


def _value(key: str, value: Any) -> Any:
    if key == "dtype" and isinstance(value, dict) and "DTypePolicy" not in value.get("class_name", ""):
        return value.get("config", {}).get("name", "float32")
    if key == "axis" and isinstance(value, list) and len(value) == 1:
        return value[0]
    if isinstance(value, dict) and "class_name" in value:
        return modern(value)
    if isinstance(value, list) and value and all(isinstance(v, dict) and "class_name" in v for v in value):
        return [modern(v) for v in value]
    return value


def _input_layer(config: dict) -> dict:
    config = dict(config)
    if "batch_input_shape" in config:
        config["batch_shape"] = config.pop("batch_input_shape")
    kept = ("batch_shape", "dtype", "name", "sparse", "ragged", "optional")
    return {key: _value(key, value) for key, value in config.items() if key in kept}


def _lambda(config: dict) -> dict:
    config = {k: v for k, v in config.items() if k not in _GONE and not k.endswith(("_type", "module"))}
    if isinstance(config.get("function"), (list, tuple, dict)) and not _names_function(config["function"]):
        raise UnsafeFileError(
            f"Lambda layer '{config.get('name')}' of the file holds its function as byte code, which would have to be run. "
            "kerasoft never runs code of a legacy file; save the model again with a registered function or layer."
        )
    if isinstance(config.get("function"), str):
        name = config["function"]
        config["function"] = {"module": None, "class_name": "function", "config": name, "registered_name": name}
    return {key: _value(key, value) for key, value in config.items()}


def _names_function(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "function"


def _sequential(config: Any) -> dict:
    layers = config if isinstance(config, list) else config["layers"]
    made = dict(config) if isinstance(config, dict) else {}
    first = layers[0] if layers else None
    shape = first["config"].get("batch_input_shape") if first and isinstance(first["config"], dict) else None
    if shape is not None and first["class_name"] != "InputLayer":
        dtype = _value("dtype", first["config"].get("dtype") or "float32")
        if first["class_name"] == "Embedding":
            dtype = "int32"
        entry = {"batch_shape": shape, "dtype": dtype, "name": f"{first['config'].get('name', 'first')}_input"}
        layers = [{"class_name": "InputLayer", "config": entry}, *layers]
    made["layers"] = [modern(layer) for layer in layers]
    return {key: _value(key, value) for key, value in made.items() if key != "build_input_shape" or value}


def _functional(config: dict) -> dict:
    layers, is_old = [], False
    for layer in config["layers"]:
        is_old = is_old or any(isinstance(node, list) for node in layer.get("inbound_nodes", []))
        nodes = [_node(node) if isinstance(node, list) else node for node in layer.get("inbound_nodes", [])]
        name = layer.get("name") or layer["config"]["name"]
        layers.append({**modern(layer), "name": name, "inbound_nodes": nodes})
    made = {**config, "layers": layers}
    if is_old:  # a single input or output was in a list, too
        for key in ("input_layers", "output_layers"):
            made[key] = config[key][0] if len(config[key]) == 1 else config[key]
    return made


def _tensor(place: list) -> dict:
    history = {"shape": (), "dtype": "float32", "keras_history": list(place[:3])}
    return {"class_name": "__keras_tensor__", "config": history}


def _is_place(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and all(isinstance(v, int) and not isinstance(v, bool) for v in value[1:3])
    )


def _node(node: list) -> dict:
    """A call as ``{"args", "kwargs"}``; before, it was a list of ``[layer, node, tensor, kwargs]``."""
    places = [node] if _is_place(node) else node
    if not all(_is_place(place) for place in places):
        raise SerializationError(f"the file's call {node!r} is not understood")
    tensors = [_tensor(place) for place in places]
    keywords: dict[str, Any] = {}
    for place in places:
        keywords.update(place[3] if len(place) > 3 else {})
    keywords = {k: _tensor(v) if _is_place(v) else v for k, v in keywords.items()}
    return {"args": [tensors[0] if len(tensors) == 1 else tensors], "kwargs": keywords}
