"""What the user wants of the choice of kernels. Starts nothing: `kerasoft.config` reads and sets these.

Environment: ``KERASOFT_KERNELS="conv=xla,lstm=native"`` (or ``*=xla``) fixes the lowering of ops by name;
``KERASOFT_MEASURE`` is the number of seconds that an executable may spend on measuring, 0 for none.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
from collections.abc import Iterable, Iterator, Mapping

DEFAULT_BUDGET_S = 1.5
_forced: dict[str, str] | None = None
_budget_s: float | None = None


def forced() -> dict[str, str]:
    """{op: name of the lowering} that the user fixed; "*" stands for all ops."""
    if _forced is not None:
        return dict(_forced)
    return parsed(os.environ.get("KERASOFT_KERNELS", ""), "KERASOFT_KERNELS")


def force(kernels: Mapping[str, str] | str | None) -> None:
    """Fixes lowerings for executables made from now on; None returns to the environment's.

    Raises:
        ValueError: a text that is no list of ``op=lowering``.
    """
    global _forced
    if kernels is None:
        _forced = None
    else:
        _forced = (
            parsed(kernels, "kernels") if isinstance(kernels, str) else {str(k): str(v) for k, v in kernels.items()}
        )


_left_out: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("left_out", default=frozenset())


@contextlib.contextmanager
def leaving_out(names: Iterable[str]) -> Iterator[None]:
    """What this thread exports within it has no kernels of these libraries ("native", "onednn"), or of these names.

    For programs that run on processors which lack them.
    """
    token = _left_out.set(_left_out.get() | frozenset(names))
    try:
        yield
    finally:
        _left_out.reset(token)


def left_out() -> frozenset[str]:
    """See `leaving_out`."""
    return _left_out.get()


def parsed(text: str, who: str) -> dict[str, str]:
    """``op=lowering,...`` as a dict.

    >>> parsed("conv=xla, lstm=native", "kernels")
    {'conv': 'xla', 'lstm': 'native'}
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if part.count("=") != 1 or not all(map(str.strip, part.split("="))):
            raise ValueError(f"{who}: expected op=lowering, e.g. 'conv=xla,lstm=native' or '*=xla', got {part!r}")
    return {op.strip(): name.strip() for op, name in (part.split("=") for part in parts)}


def budget_s() -> float:
    """Seconds that one executable may spend on measuring candidates; 0: the shipped rules decide."""
    if _budget_s is not None:
        return _budget_s
    text = os.environ.get("KERASOFT_MEASURE")
    return DEFAULT_BUDGET_S if text is None else checked(text)


def set_budget_s(seconds: float | bool | None) -> None:
    """See `budget_s`. True is the default budget, False is 0, None returns to the environment's."""
    global _budget_s
    if isinstance(seconds, bool):
        seconds = DEFAULT_BUDGET_S if seconds else 0.0
    _budget_s = None if seconds is None else checked(seconds)


def checked(seconds: object) -> float:
    """
    Raises:
        ValueError: no finite number of seconds from 0 on.
    """
    try:
        value = float(seconds)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"measuring kernels: expected seconds, 0 or more (KERASOFT_MEASURE), got {seconds!r}")
    return value
