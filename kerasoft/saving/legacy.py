"""Whole-model `.h5` files: Keras 2, tf.keras and Keras 3's legacy format; weights alone also of Keras 1.

The config is JSON in the attribute ``model_config``; weights are in ``model_weights/<layer>``, named by ``weight_names``,
trainable ones first.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np

from ..errors import SerializationError, UnsafeFileError
from .hdf5 import KERAS_VERSION, GroupReader, inside, opened
from .legacy_configs import modern
from .registration import custom_object_scope
from .serialization import deserialize_keras_object, serialize_keras_object, sharing

HEADER_BYTES = 64512  # larger lists of names are spread over several attributes
LARGEST_CONFIG = 64 << 20  # bytes
ENDINGS = (".h5", ".hdf5")


# --- reading ------------------------------------------------------------------------------------------------------


def load_legacy_model(path: str, custom_objects: dict | None, compile: bool) -> Any:
    """The model of a legacy file.

    Raises:
        SerializationError: no model in the file, or a config that is not understood.
        UnsafeFileError: a Lambda layer as byte code.
    """
    with opened(path) as file:
        config = _json(file, "model_config", path)
        if config is None:
            raise SerializationError(f"No model config found in the file at {path}.")
        with custom_object_scope(custom_objects), sharing():
            model = deserialize_keras_object(modern(config))
            weights = inside(file, "model_weights")
            if weights is None:
                raise SerializationError(f"{path} has no group 'model_weights'")
            _set_all(model, weights, by_name=_same_names(model, weights))
            if compile:
                _compile(model, file, path)
    return model


def load_legacy_weights(model: Any, path: str, by_name: bool = False, skip_mismatch: bool = False) -> None:
    """Sets the weights of `model` from a legacy file, layer by layer in order or by the layers' names."""
    with opened(path) as file:
        group = file
        if "layer_names" not in file.attrs and "layer_names0" not in file.attrs:
            group = inside(file, "model_weights")
        if group is None:
            raise SerializationError(f"{path} is no legacy weights file: it has no 'layer_names'")
        _set_all(model, group, bool(by_name), skip_mismatch, unknown_allowed=bool(by_name))


def _json(file: Any, name: str, path: str) -> Any:
    text = file.attrs.get(name)
    if text is None:
        return None
    if len(text) > LARGEST_CONFIG:
        raise UnsafeFileError(f"{path}: {name} has {len(text):,} bytes, more than {LARGEST_CONFIG:,}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"{path}: {name} cannot be read: {error}") from error


def _names(group: Any, name: str) -> list[str]:
    if name in group.attrs:
        found = list(group.attrs[name])
    else:
        found, part = [], 0
        while f"{name}{part}" in group.attrs:
            found.extend(group.attrs[f"{name}{part}"])
            part += 1
    return [n.decode("utf8") if isinstance(n, bytes) else str(n) for n in found]


def _values(group: Any) -> list[tuple[str, np.ndarray]]:
    """(short name, value) of the weights in a group."""
    values = []
    for name in _names(group, "weight_names"):
        folder, _, leaf = name.rpartition("/")
        holder = inside(group, folder) if folder else group
        if holder is None:
            raise SerializationError(f"the weights file has no '{name}' in {group.name}")
        values.append((leaf.partition(":")[0], GroupReader(holder)[leaf]))
    return values


def _in_order(variables: list, saved: list[tuple[str, np.ndarray]]) -> list[np.ndarray]:
    """The values in the order of `variables`: by their names where these say it all, else as they come."""
    names = [v.name for v in variables]
    found = dict(saved)
    if len(found) == len(saved) == len(set(names)) and set(found) == set(names):
        return [found[name] for name in names]
    return [value for _, value in saved]


def _legacy_weights(layer: Any) -> list[Any]:
    return layer.trainable_weights + layer.non_trainable_weights


def _same_names(model: Any, group: Any) -> bool:
    """Whether the file's layers with weights are the model's, so that names say more than the order does."""
    saved = [n for n in _names(group, "layer_names") if _names(_layer_group(group, n), "weight_names")]
    mine = [layer.name for layer in model.layers if _legacy_weights(layer)]
    return len(set(saved)) == len(saved) and sorted(saved) == sorted(mine)


def _layer_group(group: Any, name: str) -> Any:
    found = inside(group, name)
    if found is None:
        raise SerializationError(f"the weights file lists layer '{name}' but has no group for it")
    return found


def _set_all(
    model: Any, group: Any, by_name: bool = False, skip_mismatch: bool = False, unknown_allowed: bool = False
) -> None:
    saved = [(n, _values(_layer_group(group, n))) for n in _names(group, "layer_names")]
    if by_name:
        layers: dict[str, list] = {}
        for layer in model.layers:
            layers.setdefault(layer.name, []).append(layer)
        pairs = [(layer, n, values) for n, values in saved for layer in layers.get(n, [])]
        pairs = [pair for pair in pairs if unknown_allowed or pair[2] or _legacy_weights(pair[0])]
    else:
        filled = [(n, values) for n, values in saved if values]
        mine = [layer for layer in model.layers if _legacy_weights(layer)]
        if len(filled) != len(mine):
            raise SerializationError(
                f"Layer count mismatch when loading weights from file. Model expected {len(mine)} layers, found "
                f"{len(filled)} saved layers."
            )
        pairs = [(layer, n, values) for layer, (n, values) in zip(mine, filled, strict=True)]
    for k, (layer, name, values) in enumerate(pairs):
        _set(_legacy_weights(layer), values, f"layer #{k} (named {layer.name})", name, skip_mismatch)
    top = inside(group, "top_level_model_weights")
    if top is not None:
        own = [v for v in model._own_variables if any(v is w for w in model.weights)]
        _set(own, _values(top), "top-level model", "top_level_model_weights", skip_mismatch)


def _set(variables: list, values: list, what: str, saved_name: str, skip_mismatch: bool) -> None:
    if len(variables) != len(values):
        text = (
            f"Weight count mismatch for {what}, {saved_name} in the save file. Layer expects {len(variables)} weight(s). "
            f"Received {len(values)} saved weight(s)"
        )
        if not skip_mismatch:
            raise SerializationError(text)
        warnings.warn(f"Skipping: {text}", stacklevel=5)
        return
    for variable, value in zip(variables, _in_order(variables, values), strict=True):
        if tuple(variable.shape) != value.shape:
            text = (
                f"Shape mismatch in {what} for weight {variable.path}. Weight expects shape {tuple(variable.shape)}. "
                f"Received saved weight with shape {value.shape}"
            )
            if not skip_mismatch:
                raise SerializationError(text)
            warnings.warn(f"Skipping: {text}", stacklevel=5)
            continue
        variable.assign(value)


def _compile(model: Any, file: Any, path: str) -> None:
    training = _json(file, "training_config", path)
    if training is None:
        warnings.warn(
            "No training configuration found in the save file, so the model was *not* compiled. Compile it manually.",
            stacklevel=4,
        )
        return
    try:
        arguments = {name: training.get(name) for name in ("loss", "metrics", "weighted_metrics", "loss_weights")}
        arguments = {name: _nested(value) for name, value in arguments.items() if value is not None}
        optimizer = deserialize_keras_object(modern(training["optimizer_config"]))
        model.compile(optimizer=optimizer, **arguments)
        model._build_optimizer()
    except (ValueError, TypeError, KeyError) as error:
        warnings.warn(f"The model was not compiled, as its training configuration has changed: {error}", stacklevel=4)
        return
    group = inside(file, "optimizer_weights")
    if group is None:
        return
    values, variables = [value for _, value in _values(group)], model.optimizer.variables
    if [v.shape for v in values] != [tuple(v.shape) for v in variables]:
        warnings.warn(
            "Error in loading the saved optimizer state. As a result, your model is starting with a freshly initialized "
            "optimizer.",
            stacklevel=4,
        )
        return
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _nested(value: Any) -> Any:
    """Losses and metrics in lists and dicts; names stay names."""
    if isinstance(value, dict) and "class_name" in value:
        if value["class_name"] == "MeanMetricWrapper":  # tf.keras: a named function
            return value["config"]["name"]
        return deserialize_keras_object(modern(value))
    if isinstance(value, dict):
        return {key: _nested(item) for key, item in value.items()}
    return [_nested(item) for item in value] if isinstance(value, list) else value


# --- writing ------------------------------------------------------------------------------------------------------


def save_legacy_model(model: Any, file: Any, include_optimizer: bool = True) -> None:
    """Writes `model` as Keras 3 writes its legacy format, to an open ``h5py.File``."""
    config = serialize_keras_object(model)
    file.attrs["keras_version"] = KERAS_VERSION
    file.attrs["backend"] = "jax"
    file.attrs["model_config"] = json.dumps({"class_name": config["class_name"], "config": config["config"]})
    group = file.create_group("model_weights")
    group.attrs["backend"], group.attrs["keras_version"] = b"jax", KERAS_VERSION.encode()
    _write_names(group, "layer_names", [layer.name for layer in model.layers])
    for layer in sorted(model.layers, key=lambda x: x.name):
        _write_variables(group.create_group(layer.name), _legacy_weights(layer))
    own = [v for v in model._own_variables if any(v is w for w in model.weights)]
    _write_variables(group.create_group("top_level_model_weights"), own)
    if include_optimizer and model.compiled and model.optimizer is not None:
        training = model.get_compile_config() or {}
        optimizer = training.pop("optimizer")
        kept = {k: v for k, v in training.items() if k not in ("run_eagerly", "steps_per_execution", "jit_compile")}
        named = {"class_name": optimizer["registered_name"] or optimizer["class_name"], "config": optimizer["config"]}
        kept["loss"] = _full_names(kept.get("loss"))
        file.attrs["training_config"] = json.dumps({"loss_weights": None, **kept, "optimizer_config": named})
        if model.optimizer.variables:
            _write_variables(file.create_group("optimizer_weights"), model.optimizer.variables)


def _full_names(loss: Any) -> Any:
    """Losses by their functions' names: Keras does not read "mse" here."""
    from .. import losses

    if isinstance(loss, str):
        found = losses.get(loss)
        return getattr(found, "__name__", loss)
    if isinstance(loss, dict) and "class_name" not in loss:
        return {key: _full_names(value) for key, value in loss.items()}
    return [_full_names(value) for value in loss] if isinstance(loss, (list, tuple)) else loss


def _write_variables(group: Any, variables: list) -> None:
    names: list[str] = []
    for variable in variables:
        name, count = variable.path, 1
        while name in names:
            name, count = f"{variable.path}_{count}", count + 1
        names.append(name)
        group.create_dataset(name, data=np.asarray(variable.numpy()))
    _write_names(group, "weight_names", names)


def _write_names(group: Any, key: str, names: list[str]) -> None:
    data = np.asarray([name.encode("utf8") for name in names])
    parts = 1
    while any(part.nbytes > HEADER_BYTES for part in np.array_split(data, parts)):
        parts += 1
    if parts == 1:
        group.attrs[key] = data
        return
    for i, part in enumerate(np.array_split(data, parts)):
        group.attrs[f"{key}{i}"] = part
