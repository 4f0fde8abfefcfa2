"""Random tensors and seeds, with the same numbers as Keras's JAX backend for the same seed."""

from __future__ import annotations

import random as _python_random
import sys
from typing import Any

import numpy as np

from . import dtypes
from .scope import current_scope
from .variables import Variable

_global: SeedGenerator | None = None


class SeedGenerator:
    """Gives a new key at each `next()`.

    Args:
        seed: a whole number of at least 0, or None for one drawn from Python's `random`.

    In a compiled step the keys come from the step's own key, so that any number of workers draws the same.

    >>> import kerasoft as ks
    >>> a, b = ks.random.SeedGenerator(3), ks.random.SeedGenerator(3)
    >>> a.next().tolist(), a.next().tolist(), b.next().tolist()
    ([3, 0], [3, 1], [3, 0])
    """

    def __init__(self, seed: int | None = None, name: str | None = None, **kwargs: Any):
        from .naming import auto_name, name_scope

        kwargs.pop("backend", None)
        if kwargs:
            raise ValueError(f"Unrecognized keyword arguments: {kwargs}")
        self.name = name or auto_name("SeedGenerator")
        self._initial_seed = seed
        if seed is None:
            seed = _python_random.randint(1, int(1e9))
        if not isinstance(seed, (int, np.integer)):
            raise ValueError(f"Argument `seed` must be an integer. Received: seed={seed}")
        if seed < 0:
            raise ValueError(f"Argument `seed` must be a non-negative integer. Received: seed={seed}")
        with name_scope(self.name):
            value = np.array([seed % 2**32, 0], "uint32")
            self.state = Variable(value, dtype="uint32", trainable=False, name="seed_generator_state")

    def next(self, ordered: bool = True) -> Any:
        """The key (uint32[2]); the next one will differ. Not `ordered`, keys jump about instead of counting."""
        scope = current_scope()
        if scope is not None and scope.tracing:
            return _traced_key(self)
        key = self.state.value
        if ordered:
            self.state.assign(key + np.array([0, 1], "uint32"))
        else:
            self.state.assign((key + np.uint32(1)) * np.uint32(5387) % np.uint32(933199))
        return key

    def get_config(self) -> dict:
        return {"seed": self._initial_seed, "name": self.name}

    @classmethod
    def from_config(cls, config: dict) -> SeedGenerator:
        return cls(**config)


def _traced_key(seed: SeedGenerator) -> Any:
    """A key of one draw in what is being traced: of the step's key in training, a constant elsewhere."""
    from .compiler.ops import random

    key = _step_key()
    return random.fold_in(seed.state._value if key is None else key, salt_of(seed))


def _step_key() -> Any:
    """The key of the step that is being traced; tests and predictions have none."""
    scope = current_scope()
    return None if scope.training is False else scope.key


def salt_of(seed: Any) -> int:
    """A number that tells this draw from the step's others; another one for generators of another seed."""
    salt = current_scope().next_salt()
    start = getattr(seed, "_initial_seed", None)
    return salt if start is None else (salt + 7919 * (int(start) + 1)) % 2**31


def global_seed_generator() -> SeedGenerator:
    """The generator behind draws without a seed.

    Raises:
        ValueError: in a function that JAX traces, where its state would become a constant.
    """
    global _global
    if current_scope() is None and _jax_traces():
        raise ValueError(
            "[JAX RNG] When tracing a JAX function, you should only use seeded random ops, e.g. you should create a "
            "`SeedGenerator` instance, attach it to your layer/model, and pass the instance as the `seed` argument "
            "when calling random ops. Unseeded random ops would get incorrectly traced by JAX and would become "
            "constant after tracing."
        )
    if _global is None:
        _global = SeedGenerator()
    return _global


def _jax_traces() -> bool:
    """Whether this runs in a function that JAX is tracing."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(jax.numpy.zeros(()), jax.core.Tracer)


def reset_global_seed() -> None:
    """The next draw without a seed takes a new seed from Python's `random`."""
    global _global
    _global = None


def draw_key(seed: Any) -> Any:
    """A key from an int, a generator, or None (the global generator)."""
    if isinstance(seed, SeedGenerator):
        return seed.next()
    if seed is None:
        return global_seed_generator().next(ordered=False)
    if isinstance(seed, (int, np.integer)):
        return np.array([seed % 2**32, 0], "uint32")
    if hasattr(seed, "shape"):
        return seed
    raise ValueError(
        "Argument `seed` must be either an integer or an instance of `SeedGenerator`. "
        f"Received: seed={seed} (of type {type(seed)})"
    )


# --- drawing ------------------------------------------------------------------------------------------------------


def _draw(name: str, seed: Any, *tensors: Any, **settings: Any) -> Any:
    """``jax.random.<name>(key, *tensors, **settings)``, at once or in the graph that is being traced."""
    from .ops.dispatch import is_static, kernel, tensor

    key = draw_key(seed)
    sizes = settings.get("shape", ())
    if not any(hasattr(x, "op") for x in (key, *tensors)) and all(map(is_static, sizes)):
        return _lower(key, *map(tensor, tensors), name=name, **settings)
    scope = current_scope()
    if scope is not None and scope.tracing:
        scope.exact_rows = True  # a row's draws hang on its place in the batch
    if not any(hasattr(x, "op") for x in (key, *tensors)):
        from .compiler.ops.registry import constant

        key = constant(key)
    return kernel("jax_random", _lower)(key, *map(tensor, tensors), name=name, **settings)


def _lower(key: Any, *tensors: Any, name: str, **settings: Any) -> Any:
    import jax

    tensors = tuple(map(jax.numpy.asarray, tensors))
    return getattr(jax.random, name)(jax.numpy.asarray(key), *tensors, **settings)


def _by_rows(name: str, seed: Any, shape: tuple) -> Any:
    """Standard draws of `shape` in a trace, a row's by its id or place alone; None where that cannot be."""
    scope = current_scope()
    if scope is None or not scope.tracing or not shape or not (seed is None or isinstance(seed, SeedGenerator)):
        return None
    if not all(isinstance(n, (int, np.integer)) for n in shape[1:]):
        return None
    from .compiler.ops import random
    from .compiler.ops.registry import constant

    key, salt = _step_key(), salt_of(seed)
    rows = None if scope.row_id is None else scope.row_id.shape[0]
    if key is None:
        source = global_seed_generator() if seed is None else seed
        bits = random.random_bits(constant(source.state._value), salt=salt, shape=shape)
    elif rows is not None and (shape[0] is rows or shape[0] == rows):
        bits = random.random_bits_rows(key, scope.row_id, salt=salt, shape=shape[1:])
    else:
        bits = random.random_bits(key, salt=salt, shape=shape)
    return getattr(random, f"bits_to_{name}")(bits)


def _standard(name: str, shape: Any, dtype: Any, seed: Any, **settings: Any) -> Any:
    shape, dtype = tuple(shape), dtypes.narrowed(dtype)
    drawn = _by_rows(name, seed, shape)
    return _draw(name, seed, **settings, shape=shape, dtype=dtype) if drawn is None else _cast(drawn, dtype)


def _cast(x: Any, dtype: str) -> Any:
    from . import ops

    return ops.cast(x, dtype)


def normal(shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Normally distributed numbers.

    >>> import kerasoft as ks
    >>> ks.random.normal((2,), seed=1).round(3).tolist() == ks.random.normal((2,), seed=1).round(3).tolist()
    True
    """
    return _standard("normal", shape, dtype, seed) * stddev + mean


def uniform(shape: Any, minval: float = 0.0, maxval: float = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Evenly distributed numbers in [minval, maxval)."""
    if dtype and not dtypes.is_float(dtype):
        raise ValueError(f"`keras.random.uniform` requires a floating point `dtype`. Received: dtype={dtype} ")
    shape, dtype = tuple(shape), dtypes.narrowed(dtype)
    drawn = _by_rows("uniform", seed, shape)
    if drawn is not None:
        return _cast(drawn, dtype) * (maxval - minval) + minval
    return _draw("uniform", seed, shape=shape, dtype=dtype, minval=minval, maxval=maxval)


def truncated_normal(shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Normally distributed numbers within two standard deviations."""
    return _standard("truncated_normal", shape, dtype, seed, lower=-2.0, upper=2.0) * stddev + mean


def randint(shape: Any, minval: Any, maxval: Any, dtype: Any = "int32", seed: Any = None) -> Any:
    """Integers in [minval, maxval)."""
    if dtype and "int" not in dtypes.standardize(dtype):
        raise ValueError(f"`keras.random.randint` requires an integer `dtype`. Received: dtype={dtype} ")
    dtype = dtypes.narrowed(dtype or "int32")
    return _draw("randint", seed, shape=tuple(shape), minval=minval, maxval=maxval, dtype=dtype)


def categorical(logits: Any, num_samples: int, dtype: Any = "int32", seed: Any = None) -> Any:
    """Class numbers (batch, num_samples) drawn by unnormalised log-probabilities (batch, classes)."""
    from . import ops

    logits = ops.convert_to_tensor(logits)
    if len(logits.shape) != 2:
        raise ValueError(
            "`logits` should be a 2-D tensor with shape [batch_size, num_classes]. "
            f"Received: logits.shape={logits.shape}"
        )
    shape = (logits.shape[0], int(num_samples))
    return ops.cast(_draw("categorical", seed, ops.expand_dims(logits, -1), axis=1, shape=shape), dtype)


def shuffle(x: Any, axis: int = 0, seed: Any = None) -> Any:
    """x with its elements in random order along `axis`, each line in an order of its own."""
    return _draw("permutation", seed, x, axis=int(axis), independent=True)


def gamma(shape: Any, alpha: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Gamma distributed numbers."""
    return _draw("gamma", seed, alpha, shape=tuple(shape), dtype=dtypes.narrowed(dtype))


def beta(shape: Any, alpha: Any, beta: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Beta distributed numbers."""
    return _draw("beta", seed, alpha, beta, shape=tuple(shape), dtype=dtypes.narrowed(dtype))


def binomial(shape: Any, counts: Any, probabilities: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Binomially distributed numbers."""
    return _draw("binomial", seed, counts, probabilities, shape=tuple(shape), dtype=dtypes.narrowed(dtype))


def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    """`inputs` with a share `rate` set to 0 and the others divided by 1 - rate.

    Args:
        noise_shape: the shape of the mask, which is broadcast over `inputs`; None stands for the size of `inputs`.
    """
    from . import ops

    inputs = ops.convert_to_tensor(inputs)
    if rate in (0.0, 1.0):
        return inputs if rate == 0.0 else ops.zeros_like(inputs)
    sizes = tuple(inputs.shape)
    if noise_shape is not None:
        sizes = tuple(have if wanted is None else wanted for wanted, have in zip(noise_shape, sizes, strict=True))
    drawn = _by_rows("uniform", seed, sizes)
    keep = _draw("bernoulli", seed, p=1.0 - rate, shape=sizes) if drawn is None else ops.less(drawn, 1.0 - rate)
    return ops.where(keep, inputs / (1.0 - rate), ops.zeros_like(inputs))
