"""Names that are made for the user: `dense`, `dense_1`, ... and paths such as `encoder/dense/kernel`."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import re
from collections.abc import Iterator

_counts: dict[str, int] = {}
_uids: dict[str, int] = {}
_path: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("path", default=())


@functools.lru_cache(maxsize=4096)
def to_snake_case(name: str) -> str:
    """Keras's snake case.

    >>> [to_snake_case(n) for n in ("Dense", "Conv2D", "MaxPooling2D", "PReLU", "LSTM", "TimeDistributed")]
    ['dense', 'conv2d', 'max_pooling2d', 'p_re_lu', 'lstm', 'time_distributed']
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def auto_name(prefix: str) -> str:
    """`prefix` in snake case with a counter from the second use on."""
    return unique(to_snake_case(prefix), _counts)


def unique(name: str, counts: dict[str, int]) -> str:
    """`name`, `name_1`, `name_2`, ... for repeated calls with the same `counts`."""
    if name in counts:
        counts[name] += 1
        return f"{name}_{counts[name]}"
    counts[name] = 0
    return name


def get_uid(prefix: str = "") -> int:
    """How often this was called with `prefix`, from 1 on.

    >>> clear_session()
    >>> get_uid("dense"), get_uid("dense")
    (1, 2)
    """
    _uids[prefix] = _uids.get(prefix, 0) + 1
    return _uids[prefix]


def clear_session(free_memory: bool = True) -> None:
    """Starts the counters of automatic names again, and forgets the default dtype policy.

    >>> import kerasoft as ks
    >>> ks.utils.clear_session()
    >>> ks.Input((3,)).name, ks.Input((3,)).name
    ('keras_tensor', 'keras_tensor_1')
    """
    from . import config, random

    _counts.clear()
    _uids.clear()
    config._values["dtype_policy"] = None
    random.reset_global_seed()


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """What is named inside does not count: the next automatic names are those that would have come without it."""
    kept = dict(_counts)
    try:
        yield
    finally:
        _counts.clear()
        _counts.update(kept)


@contextlib.contextmanager
def name_scope(name: str) -> Iterator[None]:
    """Variables made inside have `name` in their path."""
    token = _path.set((*_path.get(), name))
    try:
        yield
    finally:
        _path.reset(token)


class absolute_scope:  # noqa: N801  it is used like a function; a class costs fewer calls
    """As `name_scope`, but `path` is the whole path."""

    def __init__(self, path: str):
        self._names = (path,)

    def __enter__(self) -> None:
        self._token = _path.set(self._names)

    def __exit__(self, *_: object) -> None:
        _path.reset(self._token)


def enter(path: str) -> contextvars.Token:
    """Opens `absolute_scope(path)` without a ``with``; `leave` closes it."""
    return _path.set((path,))


leave = _path.reset


def current_path() -> str:
    """The names of the scopes that are open, joined by ``/``."""
    return "/".join(_path.get())
