"""JaxLayer: a JAX function, with parameters and state of its own, as a layer."""

from __future__ import annotations

import inspect

import numpy as np

from .. import ops, random, tree
from ..compiler.ops import control
from ..variables import Variable
from .configured import Configured
from .saved import from_saved, to_saved


class JaxLayer(Configured):
    """Computes ``call_fn`` with JAX, inside the compiled graph and with JAX's own gradient.

    Args:
        call_fn: ``call_fn(params, [state,] [rng,] inputs, [training]) -> outputs`` (or ``(outputs, new_state)`` with a
            `state` argument); arguments are found by name, `params` and `inputs` are required.
        init_fn: ``init_fn(rng, inputs, [training]) -> params`` or ``(params, state)``; needed without `params`.
        params: nested arrays, the first values of the trainable weights.
        state: nested arrays, the first values of the others.
        seed: for `init_fn` and `rng`.
        native_serialization_platforms: accepted; it is TensorFlow's.

    Raises:
        ValueError: neither `init_fn` nor `params`, or another signature.

    >>> import kerasoft as ks, numpy as np
    >>> layer = ks.layers.JaxLayer(lambda params, inputs: inputs @ params["w"], params={"w": np.ones((3, 2), "float32")})
    >>> layer(ks.Input((3,))).shape, [w.shape for w in layer.weights]
    ((None, 2), [(3, 2)])
    """

    def __init__(
        self, call_fn, init_fn=None, params=None, state=None, seed=None, native_serialization_platforms=None, **kwargs
    ):
        super().__init__(**kwargs)
        if init_fn is None and params is None and state is None:
            raise ValueError("`init_fn`, `params` and `state` cannot all be `None`.")
        self.call_fn, self.init_fn = call_fn, init_fn
        self.keep(seed=seed)
        self._hold(None, None)
        self._names = list(inspect.signature(call_fn).parameters)
        for name in ("params", "inputs"):
            if name not in self._names:
                raise ValueError(f"Missing required argument in `call_fn`: `{name}`; it has {self._names}")
        unknown = set(self._names) - {"params", "state", "rng", "inputs", "training"}
        if unknown:
            raise ValueError(f"Unsupported argument in `call_fn`: {sorted(unknown)}")
        self.has_state = "state" in self._names
        if params is not None or state is not None:
            self._hold(params, state)
        if params is not None or init_fn is None:
            self.built = True

    def _hold(self, params, state):
        """Makes `params` and `state` weights; the structures stay as given, for JAX to take apart."""
        object.__setattr__(self, "params", self.variables_of(params, True))
        object.__setattr__(self, "state", self.variables_of(state, False))

    def variables_of(self, structure, trainable):
        """A weight for each array of `structure`."""

        def variable(value):
            value = np.asarray(value)
            return self.add_weight(
                shape=value.shape,
                initializer=lambda shape, dtype=None: value,
                dtype=value.dtype.name,
                trainable=trainable,
                name="variable",
            )

        with self._name_scope():
            return None if structure is None else tree.map_structure(variable, structure)

    def build(self, input_shape):
        if self.params is not None or self.init_fn is None:
            return
        import jax.numpy as jnp

        shapes = [input_shape] if not input_shape or not isinstance(input_shape[0], (list, tuple)) else input_shape
        xs = [jnp.ones([1 if d is None else d for d in shape], self.compute_dtype) for shape in shapes]
        key = jnp.asarray(random.draw_key(self.seed))
        given = {"rng": key, "inputs": xs[0] if len(xs) == 1 else xs, "training": True}
        made = self.init_fn(*(given[n] for n in inspect.signature(self.init_fn).parameters))
        params, state = made if self.has_state else (made, None)
        self._hold(params, state)

    def call(self, inputs, training=False):
        import jax

        given = {"params": self.params, "state": self.state, "inputs": inputs}
        leaves, where = jax.tree.flatten(given, is_leaf=lambda x: isinstance(x, Variable) or hasattr(x, "op"))
        key = np.asarray(random.draw_key(self.seed)) if "rng" in self._names else None
        shaped = []

        def run(*values):
            held = {**jax.tree.unflatten(where, values), "rng": key, "training": bool(training)}
            results, shape = jax.tree.flatten(self.call_fn(*(held[name] for name in self._names)))
            shaped[:] = [shape]
            return tuple(results)

        run.__name__ = getattr(self.call_fn, "__name__", "call_fn")
        results = list(control.from_jax(run)(*(ops.convert_to_tensor(x) for x in leaves)))
        outputs = jax.tree.unflatten(shaped[0], results)
        if not self.has_state:
            return outputs
        outputs, state = outputs
        for variable, value in zip(tree.flatten(self.state), tree.flatten(state), strict=True):
            variable.assign(value)
        return outputs

    def get_config(self):
        config = {**super().get_config(), "call_fn": to_saved(self.call_fn), "init_fn": to_saved(self.init_fn)}
        for name in ("params", "state"):
            held = getattr(self, name)
            values = None if held is None else tree.map_structure(lambda v: v.numpy(), held)
            config[name] = to_saved(values)
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**{name: from_saved(value) for name, value in config.items()})
