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
        self.is_plain = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in kinds)
        self.required = sum(p.default is p.empty for p in kinds)
        self.takes_training, self.takes_mask = "training" in self.names, "mask" in self.names
        self._unset: dict[int, set[str]] = {}

    def has(self, name: str) -> bool:
        return name in self.names

    def unset(self, count: int) -> set[str]:
        """The names left for keyword arguments after `count` positional ones."""
        found = self._unset.get(count)
        if found is None:
            self._unset[count] = found = set(self.names[count:])
        return found

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
        masks: arguments named ``..._mask`` that are tensors.
        first: the first argument.
    """

    def __init__(self, signature: CallSignature, args: tuple, kwargs: dict):
        names = signature.names
        by_name = self.by_name = dict(zip(names, args, strict=False))
        if (
            signature.is_plain
            and signature.required <= len(args) <= len(names)
            and not (kwargs and set(kwargs) - signature.unset(len(args)))
        ):
            by_name.update(kwargs)
        else:
            self._bind(signature, args, kwargs)
        self.first = args[0] if args else next(iter(by_name.values()), None)
        self.tensors: dict[str, Any] = {}
        self.masks: dict[str, Any] = {}
        for name, value in by_name.items():
            if value is None or name == "mask":
                continue
            if name.endswith("_mask"):
                if is_tensor(value):
                    self.masks[name] = value
                continue
            if isinstance(value, (list, tuple, dict)):
                if _holds_tensors(value):
                    self.tensors[name] = value
            elif hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type):
                self.tensors[name] = value

    def _bind(self, signature: CallSignature, args: tuple, kwargs: dict) -> None:
        """Binds arguments that need Python's rules: catch-alls, or a wrong number or name, which raises TypeError."""
        known = {k: v for k, v in kwargs.items() if signature.takes_any or signature.has(k) or k not in CONTEXT}
        self.by_name.clear()
        for name, value in signature.signature.bind(*args, **known).arguments.items():
            kind = signature.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                self.by_name.update(value)
            else:
                self.by_name[name] = value


def _holds_tensors(value: Any) -> bool:
    leaves = tree.flatten(value)
    return any(map(is_tensor, leaves)) and all(is_tensor(x) or x is None for x in leaves)


@functools.lru_cache(maxsize=4096)
def _build_parameters(function: Any) -> list[Any]:
    """The parameters of a `build` function that can be given, without self."""
    found = inspect.signature(function).parameters.values()
    return [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)][1:]


def shapes_for_build(arguments: CallArguments, build: Any, shape_of: Any) -> dict[str, Any] | None:
    """The shapes to give to `build`, by its parameter names; None if they cannot be told.

    A `build` of one parameter gets the shape of the first tensor argument; one of several gets `<argument>_shape`.
    """
    bound = getattr(build, "__func__", None)
    parameters = _build_parameters(bound) if bound is not None else list(inspect.signature(build).parameters.values())
    shapes = {f"{name}_shape": tree.map_structure(shape_of, value) for name, value in arguments.tensors.items()}
    shapes |= {f"{name}_shape": shape_of(value) for name, value in arguments.masks.items()}
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


def wrong_build(layer: Any, arguments: CallArguments) -> str:
    """What is wrong with a `build` to which `shapes_for_build` finds no shapes."""
    names = [p.name for p in _build_parameters(type(layer).build)]
    name = next(
        (n for n in names if not n.endswith("_shape")),
        next((n for n in names if n[:-6] not in arguments.by_name), names[0]),
    )
    if name.endswith("_shape"):
        what = f"received `build()` argument `{name}`, but `call()` does not have argument `{name[:-6]}`"
    else:
        what = f"Received `build()` argument `{name}`, which does not end in `_shape`"
    return (
        "For a `build()` method with more than one argument, all arguments should have a `_shape` suffix and match an "
        "argument from `call()`. E.g. `build(self, foo_shape, bar_shape)` "
        f"For layer '{type(layer).__name__}', {what}. The tensors of this call are {list(arguments.tensors)}."
    )


def check_positional(args: tuple) -> None:
    """Refuses plain numbers, bools and names among positional arguments after the first.

    Raises:
        ValueError: there is one.
    """
    for arg in args[1:]:
        if isinstance(arg, (bool, int, float, str)):
            raise ValueError(
                "Only input tensors may be passed as positional arguments. The following argument value should be passed "
                f"as a keyword argument: {arg} (of type {type(arg)})"
            )
