"""Losses of parts of nested outputs: one loss for several outputs together, several for one, as Keras's CompileLoss."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import tree


@dataclasses.dataclass(frozen=True)
class Place:
    """A loss and what it is of.

    Attributes:
        path: keys that lead from the outputs to it.
        part: indices of flattened outputs: one number, or the structure of several.
        label: what it is called in logs, "" if that is the loss's own name.
    """

    path: tuple
    part: Any
    loss: Any
    weight: Any
    label: str


def is_nested_loss(loss: Any, fits: bool) -> bool:
    """Whether `loss` says more than one loss for each of the flattened outputs.

    Args:
        fits: whether it has the structure of the outputs.
    """
    entries = list(loss.values()) if isinstance(loss, dict) else loss if isinstance(loss, (list, tuple)) else []
    return not fits and any(isinstance(e, dict) or (isinstance(e, (list, tuple)) and len(e) != 1) for e in entries)


def loss_places(loss: Any, weights: Any, outputs: Any, names: tuple | None) -> list[Place]:
    """The places of all losses, in order.

    Args:
        weights: of the structure of `loss`, or as many; None for none.
        outputs: the structure of the outputs.
        names: of the flattened outputs; None if they have none.

    Raises:
        KeyError: a path that the outputs do not have.
        ValueError: another number of weights.
    """
    flat = tree.flatten(loss)
    if weights is None:
        given = [None] * len(flat)
    else:
        given = tree.flatten(weights)
        if len(given) != len(flat):
            raise ValueError(
                f"`loss_weights` must match the number of losses, got {len(flat)} losses and {len(given)} weights."
            )
    pairs = tree.pack_as(loss, [_Weighted(a, b) for a, b in zip(flat, given, strict=True)])
    indices = tree.pack_as(outputs, list(range(len(tree.flatten(outputs)))))
    return list(_walk(pairs, indices, names, ()))


@dataclasses.dataclass(frozen=True)
class _Weighted:
    loss: Any
    weight: Any


def _walk(loss: Any, part: Any, names: tuple | None, path: tuple) -> Any:
    if isinstance(loss, _Weighted):
        if loss.loss is not None:
            yield Place(path, part, loss.loss, loss.weight, _label(part, names, path))
        return
    if isinstance(loss, (list, tuple)):
        leaves = tree.flatten(part)
        if all(isinstance(x, _Weighted) for x in loss) and len(loss) == len(leaves):
            loss = tree.pack_as(part, list(loss))
        elif not isinstance(part, type(loss)):
            for one in loss:
                yield from _walk(one, part, names, path)
            return
        if isinstance(loss, _Weighted):
            yield from _walk(loss, part, names, path)
            return
    if not isinstance(loss, type(part)):
        raise KeyError(f"The path: {path} in the `loss` argument, can't be found in the model's output (`y_pred`).")
    entries = loss.items() if isinstance(loss, dict) else enumerate(loss)
    for key, one in entries:
        if not (key in part if isinstance(part, dict) else key < len(part)):
            raise no_such_output((*path, key))
        yield from _walk(one, part[key], names, (*path, key))


def no_such_output(path: tuple, more: str = "") -> KeyError:
    """The error of a loss for what is no output, in Keras's words."""
    return KeyError(
        f"The path: {path} in the `loss` argument, can't be found in either the model's output (`y_pred`) or in the "
        f"labels (`y_true`).{more}"
    )


def _label(part: Any, names: tuple | None, path: tuple) -> str:
    if not tree.is_nested(part):
        if path and not isinstance(path[-1], int):
            return "/".join(map(str, path))
        name = None if names is None else names[part].rpartition("/")[2]
        return "/".join(map(str, (*path[:-1], name))) if name is not None else ""
    if path:
        return "/".join(map(str, path))
    return "_".join(str(i if names is None else names[i]) for i in tree.flatten(part))
