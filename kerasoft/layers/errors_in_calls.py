"""Errors raised while a layer is called or built get the layer's name, its input shapes and the user's line."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from .. import tree
from ..tensors import is_tensor, known_shape, user_line


@contextlib.contextmanager
def located(layer: Any, args: tuple, kwargs: dict) -> Iterator[None]:
    """Adds to an error raised inside where it happened; the innermost layer's words only."""
    try:
        yield
    except Exception as error:
        locate(error, layer, args, kwargs)
        raise


def locate(error: Exception, layer: Any, args: tuple, kwargs: dict) -> None:
    """What `located` adds, for a caught error."""
    if not getattr(error, "_located", False):
        _extend(error, _where(layer, args, kwargs, error))
        with contextlib.suppress(AttributeError):
            error._located = True  # type: ignore[attr-defined]


def located_constructor(init: Callable) -> Callable:
    """A built-in layer's constructor whose errors name the layer's class."""

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except (ValueError, TypeError) as error:
            if not getattr(error, "_located", False):
                name = f" '{kwargs['name']}'" if isinstance(kwargs.get("name"), str) else ""
                line = user_line(error.__traceback__)
                _extend(error, f"in the constructor of {type(self).__name__}{name}" + (f", at {line}" if line else ""))
                with contextlib.suppress(AttributeError):
                    error._located = True  # type: ignore[attr-defined]
            raise

    return wrapped


def close_arguments(layer: Any, unknown: dict) -> str:
    """Advice for unknown constructor arguments: the known ones that look like them, or all."""
    known = [n for n in inspect.signature(type(layer)).parameters if n not in ("args", "kwargs")]
    known += ["name", "dtype", "trainable"]
    close = [c for name in unknown for c in difflib.get_close_matches(name, known, 1)]
    return f". Did you mean {' and '.join(map(repr, close))}?" if close else f". It takes {sorted(set(known))}."


def _where(layer: Any, args: tuple, kwargs: dict, error: BaseException) -> str:
    shapes = [_shown(a) for a in args] + [f"{k}={_shown(v)}" for k, v in kwargs.items() if _has_tensor(v)]
    line = user_line(error.__traceback__)
    at = f", at {line}" if line else ""
    return f"in layer '{layer.name}' ({type(layer).__name__}) called on {', '.join(shapes) or 'nothing'}{at}"


def _has_tensor(value: Any) -> bool:
    return any(map(is_tensor, tree.flatten(value)))


def _shown(value: Any) -> str:
    shown = tree.map_structure(lambda x: known_shape(x) if is_tensor(x) else x, value)
    text = str(shown)
    return text if len(text) <= 200 else text[:197] + "..."


def _extend(error: BaseException, where: str) -> None:
    """`where` behind the message, in place: the error keeps its type, its traceback and its attributes."""
    simple = len(error.args) == 1 and isinstance(error.args[0], str) and not isinstance(error, KeyError)
    if simple and str(error) == error.args[0]:
        error.args = (f"{error.args[0]}\n  {where}",)
    else:
        error.add_note(where)
