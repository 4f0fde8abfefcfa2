"""Further ops that cut, turn and combine tensors."""

from __future__ import annotations

import builtins
import re
from typing import Any

import numpy as np

from .. import dtypes
from ..compiler.ops import registry
from . import elementwise as e
from .creation import zeros_like
from .dispatch import fixed, is_static, kernel, public, rank, shape_of, tensor
from .manipulation import _array, _axis, _range, concatenate, expand_dims, flip, reshape, split, transpose

__all__ = [
    "array_split", "cdist", "corrcoef", "correlate", "diagflat", "diff", "dsplit", "dstack", "empty_like",
    "fliplr", "flipud", "geomspace", "hsplit", "kron", "logspace", "rearrange", "rot90",
    "trapezoid", "unravel_index", "vander", "vectorize", "vsplit",
]  # fmt: skip


# --- cutting ------------------------------------------------------------------------------------------------------


@public("numpy", "ArraySplit")
def array_split(x: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    """A list of parts along `axis`; of so many parts the first ones are longer by 1 where they cannot be equal.

    >>> [part.tolist() for part in array_split([1, 2, 3], 2)]
    [[1, 2], [3]]
    """
    if not isinstance(indices_or_sections, (int, np.integer)):
        raise TypeError(
            f"Argument `indices_or_sections` must be of type `int`. Received: indices_or_sections={indices_or_sections}"
        )
    if indices_or_sections <= 0:
        raise ValueError(
            "Argument `indices_or_sections` must be a positive integer. "
            f"Received: indices_or_sections={indices_or_sections}"
        )
    x, parts = tensor(x), int(indices_or_sections)
    axis = _axis(x, axis)
    size = shape_of(x)[axis]
    if not is_static(size):
        raise ValueError(f"array_split needs a known size on axis {axis}, got {shape_of(x)}")
    cuts = np.cumsum([0] + [size // parts + (i < size % parts) for i in range(parts)]).tolist()
    return [_range(x, axis, a, b) for a, b in zip(cuts, cuts[1:], strict=False)]


def _sections(x: Any, indices_or_sections: Any, axis: int, least: int, name: str) -> Any:
    x = tensor(x)
    if rank(x) < least:
        raise ValueError(
            f"`{name}` only works on arrays of at least {least} dimension{'s' * (least > 1)}. "
            f"Received array with shape {shape_of(x)}."
        )
    return split(x, indices_or_sections, axis)


@public("numpy", "Hsplit")
def hsplit(x: Any, indices_or_sections: Any) -> Any:
    """Parts along axis 1; of vectors along axis 0."""
    return _sections(x, indices_or_sections, 0 if rank(tensor(x)) == 1 else 1, 1, "hsplit")


@public("numpy", "Vsplit")
def vsplit(x: Any, indices_or_sections: Any) -> Any:
    """Parts along axis 0."""
    return _sections(x, indices_or_sections, 0, 2, "vsplit")


@public("numpy", "Dsplit")
def dsplit(x: Any, indices_or_sections: Any) -> Any:
    """Parts along axis 2."""
    return _sections(x, indices_or_sections, 2, 3, "dsplit")


# --- turning ------------------------------------------------------------------------------------------------------


@public("numpy", "Fliplr")
def fliplr(x: Any) -> Any:
    """x with the order along axis 1 reversed."""
    return flip(x, 1)


@public("numpy", "Flipud")
def flipud(x: Any) -> Any:
    """x with the order along axis 0 reversed."""
    return flip(x, 0)


@public("numpy", "Rot90", "array")
def rot90(array: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    """`array` turned by 90 degrees `k` times in the plane of two axes, from the first towards the second."""
    array = tensor(array)
    if rank(array) < 2:
        raise ValueError(f"Input array must have at least 2 dimensions. Received: array.ndim={rank(array)}")
    if len(axes) != 2 or axes[0] == axes[1]:
        raise ValueError(f"Invalid axes: {axes}. Axes must be a tuple of two different dimensions.")
    return kernel("rot90")(array, k=int(k), axes=fixed(axes))


def _axes_of(pattern: str) -> list[list[str]]:
    """The names in each place of one side of a pattern: ``"b (h w)"`` -> ``[["b"], ["h", "w"]]``."""
    return [part.strip("()").split() for part in re.findall(r"\w+|\(.*?\)", pattern)]


@public("einops", "Rearrange", "tensor pattern")
def rearrange(tensor: Any, pattern: str, **axes_lengths: int) -> Any:
    """Axes split, moved and joined as a pattern says.

    >>> rearrange(np.ones((2, 3, 4)), "b c (h w) -> b (h c) w", h=2).shape
    (2, 6, 2)
    """
    from .dispatch import tensor as as_tensor

    x = as_tensor(tensor)
    left, _, right = pattern.partition("->")
    before, after = _axes_of(left), _axes_of(right)
    if len(before) != rank(x):
        raise ValueError(f"rearrange: the pattern {pattern!r} has {len(before)} axes, the tensor {shape_of(x)}")
    sizes: dict[str, Any] = dict(axes_lengths)
    for names, size in zip(before, shape_of(x), strict=True):
        unknown = [n for n in names if n not in sizes]
        if len(unknown) > 1:
            raise ValueError(f"rearrange: {pattern!r} does not tell the sizes of {unknown}; give all but one of them")
        if unknown:
            known = int(np.prod([sizes[n] for n in names if n in sizes], dtype=np.int64))
            sizes[unknown[0]] = size // known if known != 1 else size
    flat = [n for names in before for n in names]
    x = reshape(x, [sizes[n] for n in flat])
    x = transpose(x, [flat.index(n) for names in after for n in names])
    return reshape(x, [_product([sizes[n] for n in names]) for names in after])


def _product(sizes: list) -> Any:
    total: Any = 1
    for size in sizes:
        total = size * total
    return total


# --- combining ----------------------------------------------------------------------------------------------------


@public("numpy", "Dstack", "xs")
def dstack(xs: Any) -> Any:
    """Tensors put behind one another along axis 2."""
    return concatenate([_three(tensor(x)) for x in xs], 2)


def _three(x: Any) -> Any:
    if rank(x) == 0:
        return reshape(x, (1, 1, 1))
    return expand_dims(x, (0, 2)) if rank(x) == 1 else expand_dims(x, 2) if rank(x) == 2 else x


@public("numpy", "Kron", "x1 x2")
def kron(x1: Any, x2: Any) -> Any:
    """Kronecker's product: x2 once for each element of x1, multiplied by it."""
    return kernel("kron")(tensor(x1), tensor(x2))


@public("numpy", "Diagflat")
def diagflat(x: Any, k: int = 0) -> Any:
    """A matrix with the elements of x on its k-th diagonal."""
    return kernel("diagflat", _diagflat)(tensor(x), k=int(k))


def _diagflat(x: Any, *, k: int) -> Any:
    import jax.numpy as jnp

    return jnp.diagflat(jnp.asarray(x), k)


@public("numpy", "Vander")
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """Columns of powers of x: N - 1 down to 0, or up with `increasing`."""
    x = tensor(x)
    if rank(x) != 1:
        raise ValueError(f"Input tensor must be 1-dimensional. Received: input.shape={shape_of(x)}")
    if not isinstance(increasing, bool):
        raise TypeError(
            f"Argument `increasing` must be of type `bool`. Received: increasing={increasing} of type {type(increasing)}"
        )
    if N is not None and not isinstance(N, int):
        raise TypeError(f"Argument `N` must be of type `int`. Received: N={N} of type {type(N)}")
    if N is not None and N < 0:
        raise ValueError(f"Argument 'N' must be nonnegative. Received: N={N}")
    return kernel("vander")(x, N=None if N is None else int(N), increasing=bool(increasing))


@public("numpy", "Diff", "a")
def diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    """Differences of neighbours along `axis`, n times.

    >>> diff([1, 4, 9]).tolist()
    [3, 5]
    """
    return kernel("diff")(_array(tensor(a)), n=int(n), axis=int(axis))


@public("numpy", "Trapezoid", "y")
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """The integral along `axis` by the trapezoidal rule, at places `x` or `dx` apart."""
    if x is None:
        return kernel("trapezoid", _trapezoid)(tensor(y), tensor(dx), axis=int(axis))
    return kernel("trapezoid_at", _trapezoid_at)(tensor(y), tensor(x), axis=int(axis))


def _trapezoid(y: Any, dx: Any, *, axis: int) -> Any:
    import jax.numpy as jnp

    return jnp.trapezoid(y, dx=dx, axis=axis)


def _trapezoid_at(y: Any, x: Any, *, axis: int) -> Any:
    import jax.numpy as jnp

    return jnp.trapezoid(y, x, axis=axis)


@public("numpy", "Corrcoef")
def corrcoef(x: Any) -> Any:
    """Correlation coefficients of the rows of x."""
    return kernel("corrcoef")(e._as_float(tensor(x)))


@public("numpy", "Correlate", "x1 x2")
def correlate(x1: Any, x2: Any, mode: str = "valid") -> Any:
    """The cross-correlation of two vectors.

    Args:
        mode: ``"valid"`` (where both overlap wholly), ``"same"`` (as long as the longer one) or ``"full"``.
    """
    x1, x2 = tensor(x1), tensor(x2)
    for name, x in (("x1", x1), ("x2", x2)):
        if rank(x) != 1:
            raise ValueError(f"`{name}` must be a 1-dimensional tensor, but received shape {shape_of(x)}")
    if mode not in ("valid", "same", "full"):
        raise ValueError(f"`mode` must be either `valid`, `same`, or `full`, but received: {mode}")
    return kernel("correlate")(x1, x2, mode=mode)


@public("math", "CDist", "x y")
def cdist(x: Any, y: Any) -> Any:
    """Euclidean distances between the rows of x (..., n, k) and of y (..., m, k): (..., n, m)."""
    from .reduction import sum

    x, y = tensor(x), tensor(y)
    if rank(x) < 2 or rank(y) < 2:
        raise ValueError(
            f"Inputs to `cdist` must have rank >= 2. Received shapes: x.shape={shape_of(x)}, y.shape={shape_of(y)}"
        )
    sizes = shape_of(x)[-1], shape_of(y)[-1]
    if builtins.all(map(is_static, sizes)) and sizes[0] != sizes[1]:
        raise ValueError(
            "The last dimension of inputs to `cdist` must match. "
            f"Received shapes: x.shape={shape_of(x)}, y.shape={shape_of(y)}"
        )
    return e.sqrt(sum(e.square(e.subtract(expand_dims(x, -2), expand_dims(y, -3))), -1))


# --- making -------------------------------------------------------------------------------------------------------


@public("numpy", "EmptyLike")
def empty_like(x: Any, dtype: Any = None) -> Any:
    """A tensor of x's shape to be filled later (zeros here)."""
    return zeros_like(x, dtype)


@public("numpy", "UnravelIndex", "indices")
def unravel_index(indices: Any, shape: Any) -> Any:
    """The index on each axis of a tensor of `shape` for places in it when flat.

    >>> [int(i) for i in unravel_index(5, (2, 4))]
    [1, 1]
    """
    made = kernel("unravel_index", _unravel_index)(tensor(indices), shape=fixed(shape))
    return registry.items(made)


def _unravel_index(x: Any, *, shape: tuple) -> Any:
    import jax.numpy as jnp

    return tuple(jnp.unravel_index(jnp.asarray(x), shape))


@public("numpy", "Logspace", "start stop")
def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10, dtype: Any = None, axis: int = 0
) -> Any:
    """`num` numbers evenly spaced on a logarithmic scale, from base**start to base**stop."""
    dtype = None if dtype is None else dtypes.narrowed(dtype)
    return kernel("logspace")(
        tensor(start), tensor(stop), num=int(num), endpoint=bool(endpoint), base=base, dtype=dtype, axis=int(axis)
    )


@public("numpy", "Geomspace", "start stop")
def geomspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0) -> Any:
    """`num` numbers from `start` to `stop`, each the same multiple of the one before."""
    dtype = None if dtype is None else dtypes.narrowed(dtype)
    return kernel("geomspace")(
        tensor(start), tensor(stop), num=int(num), endpoint=bool(endpoint), dtype=dtype, axis=int(axis)
    )


def vectorize(pyfunc: Any, *, excluded: Any = None, signature: str | None = None) -> Any:
    """`pyfunc` of single elements as a function of tensors, with broadcasting.

    >>> vectorize(lambda a, b: a + 2 * b)([1.0, 2.0], 10.0).tolist()
    [21.0, 22.0]
    """
    if not callable(pyfunc):
        raise ValueError(f"Expected argument `pyfunc` to be a callable. Received: pyfunc={pyfunc}")
    import jax.numpy as jnp

    from .core import jax

    mapped = jnp.vectorize(pyfunc, excluded=frozenset() if excluded is None else excluded, signature=signature)
    op = jax(mapped)

    def call(*args: Any, **kwargs: Any) -> Any:
        return op(*(tensor(a) for a in args), **kwargs)

    call.__name__, call.__doc__ = getattr(pyfunc, "__name__", "vectorize"), pyfunc.__doc__
    return call
