"""Rematerialisation: layers and functions whose results are computed again for the gradient instead of being kept.

What is inside a `RematScope` or `remat` becomes a segment of the training graph; how its gradient is taken stands in
`compiler/rematerialization.py`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from . import tree
from .scope import current_scope

MODES = ("full", "activations", "larger_than", "list_of_layers", None)


class RematMode(NamedTuple):
    """What a `RematScope` asks of the layers made inside."""

    mode: str | None
    output_size_threshold: int
    layer_names: Any


_stack: contextvars.ContextVar[tuple[RematMode, ...]] = contextvars.ContextVar("remat", default=())


def get_current_remat_mode() -> RematMode | None:
    """What the innermost open scope asks; None outside of any."""
    open_scopes = _stack.get()
    return open_scopes[-1] if open_scopes else None


class RematScope:
    """Layers made inside do not keep their results for the gradient: it computes them again. Less memory, more time.

    Each layer marked is a segment of its own, of which the inputs are kept, and the results that other layers need for
    their own gradients. So marking every small layer of a chain saves little; blocks of several layers (a layer or a model
    of your own made of others, or a function in `remat`) save what is inside of them. A model that is trained and was made
    in a scope of mode "full" is cut into such blocks by the compiler. Numbers are the same, random ones too.

    Args:
        mode: "full": every layer, operation and model; "activations": the activation functions of layers; "larger_than": what
            gives more than `output_size_threshold` elements, sizes that are not known counted as 1; "list_of_layers": the
            layers named `layer_names`; None: nothing, also inside of another scope.
        output_size_threshold: in elements. layer_names: names.

    Raises:
        ValueError: another mode.

    >>> import kerasoft as ks
    >>> with ks.RematScope("list_of_layers", layer_names=["wide"]):
    ...     wide = ks.layers.Dense(512, "gelu", name="wide")
    """

    def __init__(self, mode: str | None = "full", output_size_threshold: int = 1024, layer_names: Any = None):
        if mode not in MODES:
            raise ValueError(
                f"Invalid mode '{mode}'. Supported modes are: 'full', 'activations', 'larger_than', 'list_of_layers', or "
                " None."
            )
        self.mode, self.output_size_threshold, self.layer_names = mode, output_size_threshold, layer_names or []
        self._tokens: list[Any] = []

    def __enter__(self) -> RematScope:
        mode = RematMode(self.mode, self.output_size_threshold, self.layer_names)
        self._tokens.append(_stack.set((*_stack.get(), mode)))
        return self

    def __exit__(self, *_: Any) -> None:
        _stack.reset(self._tokens.pop())


def remat(f: Callable) -> Callable:
    """`f`, whose intermediate results are computed again for the gradient instead of being kept.

    For functions of tensors that a layer's `call` uses, and for layers. Outside of a training graph it is `f` itself.

    >>> remat(lambda x: x + 1)(1)
    2
    """

    @functools.wraps(f)
    def again(*args: Any, **kwargs: Any) -> Any:
        with _segment(f):
            return f(*args, **kwargs)

    return again


def rematerialized(owner: Any, call: Callable, mode: RematMode) -> Callable:
    """`call` of the layer or operation `owner`, as a segment if `mode` says so."""
    if mode.mode == "full" or (mode.mode == "list_of_layers" and owner.name in mode.layer_names):
        return _marked(owner, call, lambda outputs: True)
    if mode.mode == "larger_than":
        return _marked(owner, call, lambda outputs: _size(outputs) > mode.output_size_threshold)
    if mode.mode == "activations" and callable(vars(owner).get("activation")):
        return _with_activation(owner, call)
    return call


def _marked(owner: Any, call: Callable, wanted: Callable[[Any], bool]) -> Callable:
    def run(*args: Any, **kwargs: Any) -> Any:
        with _segment(owner) as found:
            outputs = call(*args, **kwargs)
            if not wanted(outputs):
                found.clear()
        return outputs

    return run


def _with_activation(owner: Any, call: Callable) -> Callable:
    """`call`, in which the attribute `activation` is a segment."""

    def run(*args: Any, **kwargs: Any) -> Any:
        given = owner.activation
        object.__setattr__(owner, "activation", remat(given))
        try:
            return call(*args, **kwargs)
        finally:
            object.__setattr__(owner, "activation", given)

    return run


@contextlib.contextmanager
def _segment(owner: Any) -> Iterator[set]:
    """What is traced inside becomes a segment, unless the set is emptied."""
    scope = current_scope()
    if scope is None or not scope.tracing:
        yield set()
        return
    from .compiler.ir import recording
    from .compiler.rematerialization import Segment

    with recording() as found:
        yield found
    if found:
        scope.segments.append(Segment(frozenset(found), owner))


def _size(outputs: Any) -> int:
    """Elements, sizes that are not known counted as 1."""
    shapes = [getattr(x, "shape", ()) for x in tree.flatten(outputs)]
    return sum(math.prod(d if isinstance(d, int) else 1 for d in shape) for shape in shapes)


def segments_of(scope: Any, model: Any, loss: Any) -> list:
    """The segments of a trace of `model`, which is cut into several if it is marked itself."""
    from .compiler.ir import topological
    from .compiler.segments import in_segments

    whole = next((s for s in scope.segments if s.owner is model), None)
    return scope.segments if whole is None else in_segments(whole.nodes, topological([loss]))
