"""Names, configs and aliases of losses, metrics, optimizers, initializers, regularizers, constraints, activations: Keras'.

Every public name of Keras in these namespaces is here with the same signature; `serialize` of a default instance gives
Keras' config and `deserialize` reads it; every string that Keras' `get` takes means the same here.
"""

from __future__ import annotations

import importlib
import inspect
import warnings

import keras
import pytest

import kerasoft as ks

NAMESPACES = ["activations", "constraints", "initializers", "losses", "metrics", "optimizers", "regularizers"]
ELSEWHERE = {"CTC", "ctc", "STFT", "STFTInitializer", "stft", "legacy"}  # tested with their ops
ABSTRACT = {"Loss", "Metric", "Optimizer", "Regularizer", "Initializer", "Constraint"}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def public(namespace):
    things = {name: getattr(getattr(keras, namespace), name) for name in dir(getattr(keras, namespace))}
    return {n: t for n, t in things.items() if n[0] != "_" and not inspect.ismodule(t) and n not in ELSEWHERE}


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_name_is_here_with_keras_signature(namespace):
    def shown(thing):
        return [
            (p.name, repr(p.default)) for p in inspect.signature(thing).parameters.values() if p.kind != p.VAR_KEYWORD
        ]

    for name, theirs in public(namespace).items():
        assert shown(getattr(getattr(ks, namespace), name)) == shown(theirs), name


def of_default(thing):
    """An instance of a class without required arguments, else None; functions as they are."""
    if not inspect.isclass(thing):
        return thing
    needed = [
        p for p in inspect.signature(thing).parameters.values() if p.default is p.empty and p.kind < p.VAR_POSITIONAL
    ]
    return None if needed else thing()


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_default_configs_are_keras_both_ways(namespace):
    here, there = getattr(ks, namespace), getattr(keras, namespace)
    ks.utils.clear_session(free_memory=False), keras.utils.clear_session()  # both count metrics' names
    compared = 0
    for name, theirs in public(namespace).items():
        if name in ABSTRACT | {"get", "serialize", "deserialize"} or (made := of_default(theirs)) is None:
            continue
        ours = of_default(getattr(here, name))
        config, expected = here.serialize(ours), there.serialize(made)
        if namespace == "optimizers":
            config["config"]["name"] = expected["config"]["name"]  # counts instances
        assert config == expected, name
        again = here.deserialize(expected)
        assert again is ours or type(again) is type(ours), name
        compared += 1
    assert compared > 3


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_string_means_what_it_means_in_keras(namespace):
    known = importlib.import_module(f"keras.src.{namespace}").ALL_OBJECTS_DICT

    def meant(library, name):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = getattr(library, namespace).get(name)
        except Exception:
            return "an error"
        return found.__name__ if inspect.isfunction(found) else type(found).__name__

    for name in known:
        if name not in ELSEWHERE | ABSTRACT and name.lower() != "metric":
            theirs = meant(keras, name)
            assert theirs in (meant(ks, name), "an error"), name  # Keras has some names it cannot make


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("wrong", ["nope", 3, {"class_name": "Nope", "config": {}}], ids=["name", "number", "config"])
def test_unknown_identifiers_are_named(namespace, wrong):
    with pytest.raises((ValueError, TypeError), match="Could not (interpret|locate).*([Nn]ope|3)"):
        getattr(ks, namespace).get(wrong)
