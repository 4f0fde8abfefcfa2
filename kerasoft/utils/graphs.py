"""Questions about symbolic tensors."""

from __future__ import annotations

from typing import Any


def is_keras_tensor(x: Any) -> bool:
    """Whether `x` is a `KerasTensor`.

    >>> import kerasoft as ks
    >>> is_keras_tensor(ks.Input((2,))), is_keras_tensor(2.0)
    (True, False)
    """
    from ..tensors import KerasTensor

    return isinstance(x, KerasTensor)


def get_source_inputs(tensor: Any) -> list:
    """The inputs that a symbolic tensor is computed from, in the order they are met.

    >>> import kerasoft as ks
    >>> x = ks.Input((2,))
    >>> get_source_inputs(ks.layers.Dense(1)(x))[0] is x
    True
    """
    if not hasattr(tensor, "_keras_history"):
        return tensor
    if tensor._keras_history is None:
        return [tensor]
    operation, index, _ = tensor._keras_history
    if not operation._inbound_nodes:
        return [tensor]
    call = operation._inbound_nodes[index]
    if call.is_input:
        return list(call.outputs)
    found: list = []
    for x in call.inputs:
        found.extend(source for source in get_source_inputs(x) if all(source is not known for known in found))
    return found
