"""Masks: which steps of its input a layer looks at, and which of its output hold something."""

from __future__ import annotations

import warnings
from typing import Any

from .. import tree
from ..scope import get_mask, set_mask
from ..tensors import is_tensor
from .call_arguments import CallArguments


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
