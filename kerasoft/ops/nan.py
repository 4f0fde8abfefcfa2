"""Reductions and running sums that pass over NaN."""

from __future__ import annotations

from typing import Any

from .. import dtypes
from .dispatch import fixed, kernel, public, tensor

__all__ = [
    "nanargmax", "nanargmin", "nancumprod", "nancumsum", "nanmax", "nanmean", "nanmedian", "nanmin", "nanpercentile",
    "nanprod", "nanquantile", "nanstd", "nansum", "nanvar",
]  # fmt: skip


def _reduction(name: str, text: str) -> Any:
    def function(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return kernel(name)(tensor(x), axis=fixed(axis), keepdims=bool(keepdims))

    function.__name__ = function.__qualname__ = name
    function.__doc__, function.__module__ = text, __name__
    return public("numpy", name.capitalize())(function)


nansum = _reduction("nansum", "The sum over `axis`, NaN counting as 0.")
nanprod = _reduction("nanprod", "The product over `axis`, NaN counting as 1.")
nanmean = _reduction("nanmean", "The mean over `axis` of the values that are not NaN.")
nanvar = _reduction("nanvar", "The variance over `axis` of the values that are not NaN.")
nanstd = _reduction("nanstd", "The standard deviation over `axis` of the values that are not NaN.")
nanmax = _reduction("nanmax", "The greatest value over `axis` that is not NaN.")
nanmin = _reduction("nanmin", "The smallest value over `axis` that is not NaN.")
nanmedian = _reduction("nanmedian", "The middle one over `axis` of the values that are not NaN.")
nanargmax = _reduction("nanargmax", "The place along `axis` of the greatest value that is not NaN; -1 where all are.")
nanargmin = _reduction("nanargmin", "The place along `axis` of the smallest value that is not NaN; -1 where all are.")


def _running(name: str, text: str) -> Any:
    def function(x: Any, axis: Any = None, dtype: Any = None) -> Any:
        return kernel(name)(tensor(x), axis=fixed(axis), dtype=None if dtype is None else dtypes.narrowed(dtype))

    function.__name__ = function.__qualname__ = name
    function.__doc__, function.__module__ = text, __name__
    return public("numpy", name.capitalize())(function)


nancumsum = _running("nancumsum", "Running sums along `axis`, NaN counting as 0; None flattens.")
nancumprod = _running("nancumprod", "Running products along `axis`, NaN counting as 1; None flattens.")


@public("numpy", "Nanquantile", "x q")
def nanquantile(x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False) -> Any:
    """The value below which a share `q` of the values over `axis` that are not NaN lies."""
    return kernel("nanquantile")(tensor(x), tensor(q), axis=fixed(axis), method=method, keepdims=bool(keepdims))


@public("numpy", "Nanpercentile", "x q")
def nanpercentile(x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False) -> Any:
    """The value below which `q` percent of the values over `axis` that are not NaN lie."""
    return kernel("nanpercentile")(tensor(x), tensor(q), axis=fixed(axis), method=method, keepdims=bool(keepdims))
