"""What a layer's `call` takes: tensors, masks for them, and `training`."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from .. import tree
from ..tensors import is_tensor

CONTEXT = ("training",)


class CallSignature:
    """The parameters of a `call` method."""

    def __init__(self, function: Any):
        given = inspect.signature(function)
        self.signature = given.replace(parameters=list(given.parameters.values())[1:])  # without self
        kinds = self.signature.parameters.values()
        self.names = [p.name for p in kinds if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self.takes_any = any(p.kind is p.VAR_KEYWORD for p in kinds)

    def has(self, name: str) -> bool:
        return name in self.names

    def default(self, name: str) -> Any:
        parameter = self.signature.parameters.get(name)
        return None if parameter is None or parameter.default is parameter.empty else parameter.default


@functools.lru_cache(maxsize=4096)
def signature_of(cls: type) -> CallSignature:
    """The signature of the `call` of a layer class."""
    return CallSignature(cls.call)  # type: ignore[attr-defined]


class CallArguments:
    """The arguments of one call, by name.

    Attributes:
        by_name: arguments as bound to `call`'s parameters, without defaults.
        tensors: those that are tensors or structures of tensors, in order.
        first: the first argument.
    """

    def __init__(self, signature: CallSignature, args: tuple, kwargs: dict):
        known = {k: v for k, v in kwargs.items() if signature.takes_any or signature.has(k) or k not in CONTEXT}
        self.by_name: dict[str, Any] = {}
        for name, value in signature.signature.bind(*args, **known).arguments.items():
            kind = signature.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                self.by_name.update(value)
            else:
                self.by_name[name] = value
        self.first = args[0] if args else next(iter(self.by_name.values()), None)
        self.tensors = {
            name: value
            for name, value in self.by_name.items()
            if _holds_tensors(value) and name != "mask" and not name.endswith("_mask")
        }


def _holds_tensors(value: Any) -> bool:
    leaves = tree.flatten(value)
    return any(map(is_tensor, leaves)) and all(is_tensor(x) or x is None for x in leaves)


def shapes_for_build(arguments: CallArguments, build: Any, shape_of: Any) -> dict[str, Any] | None:
    """The shapes to give to `build`, by its parameter names; None if they cannot be told.

    A `build` of one parameter gets the shape of the first tensor argument; one of several gets `<argument>_shape`.
    """
    parameters = [
        p for p in inspect.signature(build).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    shapes = {f"{name}_shape": tree.map_structure(shape_of, value) for name, value in arguments.tensors.items()}
    if not parameters:
        return {}
    if len(parameters) == 1:
        return {parameters[0].name: next(iter(shapes.values()), None)}
    found: dict[str, Any] = {}
    for p in parameters:
        if p.name in shapes:
            found[p.name] = shapes[p.name]
        elif p.default is p.empty and p.name != "input_shape":
            return None
        elif p.name == "input_shape" and shapes:
            found[p.name] = next(iter(shapes.values()))
    return found
