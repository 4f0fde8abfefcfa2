"""Masks: which steps of its input a layer looks at, and which of its output hold something."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from .. import tree
from ..scope import get_mask, set_mask
from ..tensors import Call, KerasTensor, is_tensor
from .call_arguments import CallArguments, signature_of


class Masks:
    """The part of `Layer` that takes the masks its inputs carry and gives its outputs theirs."""

    def _with_masks(self, signature: Any, arguments: CallArguments, kwargs: dict) -> tuple[dict, Any]:
        """`kwargs` with the masks that the inputs carry, and the mask of the first input."""
        tensors = arguments.tensors
        previous = get_mask(arguments.first) if hasattr(arguments.first, "dtype") else None
        if previous is None and tree.is_nested(arguments.first):
            previous = tree.map_structure(get_mask, arguments.first)
        if len(tensors) == 1:
            if signature.takes_mask and arguments.by_name.get("mask") is None:
                value = next(iter(tensors.values()))
                found = previous if value is arguments.first else tree.map_structure(get_mask, value)
                kwargs = {**kwargs, "mask": found}
        else:
            for name, value in tensors.items():
                mask_name = f"{name}_mask"
                if signature.has(mask_name) and arguments.by_name.get(mask_name) is None:
                    kwargs = {**kwargs, mask_name: tree.map_structure(get_mask, value)}
        given = kwargs.get("mask", arguments.by_name.get("mask"))
        return kwargs, previous if given is None else given

    def _pass_masks(self, first: Any, outputs: Any, previous: Any) -> None:
        if not self.supports_masking:
            if previous is not None and any(m is not None for m in tree.flatten(previous)):
                warnings.warn(
                    f"Layer '{self.name}' (of type {type(self).__name__}) was passed an input with a mask attached to "
                    "it. However, this layer does not support masking and will therefore destroy the mask "
                    "information. Downstream layers will not see the mask.",
                    stacklevel=5,
                )
            return
        if previous is None and type(self).compute_mask is Masks.compute_mask:
            return
        flat = tree.flatten(outputs)
        if all(get_mask(x) is not None for x in flat):
            return
        masks = self.compute_mask(first, previous)
        if masks is None:
            return
        for x, mask in zip(flat, tree.flatten(masks), strict=False):
            if mask is not None and is_tensor(x) and get_mask(x) is None:
                set_mask(x, mask)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the output; by default the input's."""
        return previous_mask

    # --- symbolic calls ---

    def _note_masks(self, call: Call) -> None:
        """Notes what the masks are computed from that a symbolic call takes and gives. Depths of calls count it."""
        for x in (*call.inputs, *call.outputs):
            if x._keras_mask is not None:
                break
        else:
            return
        signature = signature_of(type(self))
        arguments = CallArguments(signature, call.args, call.kwargs)
        kwargs, previous = self._with_masks(signature, arguments, call.kwargs)
        if self._records_masks(call):
            taken = [value for name, value in kwargs.items() if value is not call.kwargs.get(name)]
            call.mask_sources = sources_of(taken)
        for x in call.outputs:
            mask = x._keras_mask
            if mask is not None and not mask.mask_sources:
                mask.mask_sources = _farthest(self.mask_sources(arguments.first, previous))

    def _records_masks(self, call: Call) -> bool:
        """Whether Keras adds the masks to the call's arguments: not if it has had to make others of these."""
        one = len(call.args) == 1 and not call.kwargs and isinstance(call.args[0], KerasTensor)
        return one and call.args[0].dtype == self.input_dtype

    def mask_sources(self, inputs: Any, previous: Any) -> Any:
        """Tensors that the output's mask is computed from, and by how many ops of Keras's; as for `compute_mask`."""
        return sources_of(previous)


def sources_of(masks: Any, ops: int = 0) -> tuple[tuple[KerasTensor, int], ...]:
    """What symbolic masks are computed from, and by how many ops; `ops` more are added."""
    found: list[tuple[KerasTensor, int]] = []
    for mask in tree.flatten(masks):
        if isinstance(mask, KerasTensor):
            found.extend([(mask, 0)] if mask.history is not None else mask.mask_sources)
    return _farthest((x, count + ops) for x, count in found)


def _farthest(sources: Iterable[tuple[KerasTensor, int]]) -> tuple[tuple[KerasTensor, int], ...]:
    """Each tensor once: masks meet again after each residual connection."""
    found: dict[KerasTensor, int] = {}
    for x, count in sources:
        found[x] = max(count, found.get(x, 0))
    return tuple(found.items())
