"""LoRA: a frozen kernel plus a trained product of two thin matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import initializers, ops


def low_rank(name: str) -> property:
    """The attribute `name` of a layer: the weight kept as ``_<name>``, with the low-rank product in it."""
    own = f"_{name}"

    def read(layer: Any) -> Any:
        if own not in layer.__dict__:
            raise AttributeError(f"{type(layer).__name__} '{layer.name}' has no `{name}` before it is built")
        kernel = layer.__dict__[own]
        return layer._merged(kernel) if layer.lora_enabled else kernel

    return property(read, lambda layer, value: setattr(layer, own, value), lambda layer: delattr(layer, own))


class LowRank:
    """For layers with a kernel: ``enable_lora(rank)`` freezes it and trains ``kernel + alpha / rank * a @ b`` instead.

    a has the kernel's shape with `rank` for the last size, b is (rank, last size). What is saved is the sum, so a file
    does not tell whether LoRA was used.

    Source: Hu et al. 2021.
    """

    lora_kernel: str = "kernel"  # the name of the weight; a subclass has ``<name> = low_rank("<name>")``
    lora_enabled = False

    def keep_lora(self, rank: int | None, alpha: float | None) -> None:
        self.lora_rank = rank
        self.lora_alpha = rank if alpha is None else alpha

    def _merged(self, kernel: Any) -> Any:
        a, b = (getattr(self, f"lora_{self.lora_kernel}_{part}") for part in "ab")
        return ops.add(kernel, ops.multiply(ops.matmul(a, b), self.lora_alpha / self.lora_rank))

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        a_initializer: Any = "he_uniform",
        b_initializer: Any = "zeros",
    ) -> None:
        """Freezes the kernel and adds the two matrices.

        Raises:
            ValueError: the layer is not built, has a constraint on the kernel, or has LoRA already.
        """
        layer: Any = self
        kind = "embedding" if self.lora_kernel == "embeddings" else self.lora_kernel
        if getattr(layer, f"{self.lora_kernel}_constraint", None):
            raise ValueError(
                f"Lora is incompatible with {kind} constraints. In order to enable lora on this layer, remove the "
                f"`{self.lora_kernel}_constraint` argument."
            )
        if not layer.built and not layer._building:
            raise ValueError("Cannot enable lora on a layer that isn't yet built.")
        if self.lora_enabled:
            raise ValueError("lora is already enabled. This can only be done once per layer.")
        kernel = getattr(layer, f"_{self.lora_kernel}")
        full = getattr(layer, "_int4_shape", kernel.shape)  # int4 numbers are packed
        shapes = {"a": (*full[:-1], rank), "b": (rank, full[-1])}
        for part, initializer in (("a", a_initializer), ("b", b_initializer)):
            name = f"lora_{self.lora_kernel}_{part}"
            made = layer.add_weight(
                name=name,
                shape=shapes[part],
                initializer=initializers.get(initializer),
                dtype="float32",
                regularizer=getattr(layer, f"{self.lora_kernel}_regularizer", None),
            )
            setattr(layer, name, made)
        kernel.trainable = False
        self.lora_enabled = True
        self.lora_rank = rank
        self.lora_alpha = rank if lora_alpha is None else lora_alpha

    def build_lora(self) -> None:
        """The end of `build`: enables LoRA if the constructor was given a rank."""
        if self.lora_rank and not self.lora_enabled:
            self.enable_lora(self.lora_rank, self.lora_alpha)

    def save_own_variables(self, store: Any) -> None:
        """As usual, with the sum in the kernel's place and without the two matrices."""
        if not self.lora_enabled:
            super().save_own_variables(store)  # type: ignore[misc]
            return
        if self._is_quantized:  # type: ignore[attr-defined]
            from ..quantizers.layers import save_merged

            save_merged(self, store)
            return
        for i, variable in enumerate(self._saved()):
            merged = variable is getattr(self, f"_{self.lora_kernel}")
            store[str(i)] = np.asarray(self._merged(variable)) if merged else variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """As usual; the product starts again at zero."""
        if not self.lora_enabled:
            super().load_own_variables(store)  # type: ignore[misc]
            return
        for i, variable in enumerate(self._saved()):
            variable.assign(store[str(i)])
        for part in "ab":
            variable = getattr(self, f"lora_{self.lora_kernel}_{part}")
            variable.assign(np.zeros(variable.shape, variable.dtype))

    def _saved(self) -> list[Any]:
        own = self._stored_variables  # type: ignore[attr-defined]
        return [v for v in own if not v.name.startswith("lora_")]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()  # type: ignore[misc]
        if self.lora_rank:
            config |= {"lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha}
        return config
