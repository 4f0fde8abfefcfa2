"""QuantizationReport: what post-training quantisation did to each layer, and what it cost."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One convolution or product.

    Attributes:
        name: of its layer.
        in_float: whether it was left in float32, and `reason` why.
        error: relative error of its result when only it is quantised (root of the mean square, over its own size).
        weights: numbers in its kernel.
        low, high: the range of its input on the calibration rows.
    """

    name: str
    in_float: bool
    error: float
    weights: int
    low: float
    high: float
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class QuantizationReport:
    """What `post_training` returns beside the model; `print` it.

    Attributes:
        layers: a `LayerReport` for each convolution and product.
        measure: what the guard watched: "classes" (share of rows whose class changed), "variance" (squared error over the
            outputs' variance), or the name of a metric (what it lost).
        cost: the measure, of the quantised model.
        guard: the largest cost that was allowed, None without a guard.
        float_bytes, bytes: of all weights before and after.
    """

    layers: tuple[LayerReport, ...]
    measure: str
    cost: float
    guard: float | None
    float_bytes: int
    bytes: int

    @property
    def left_in_float(self) -> tuple[str, ...]:
        """Names of the layers that stayed in float32."""
        return tuple(layer.name for layer in self.layers if layer.in_float)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> QuantizationReport:
        return cls(**{**value, "layers": tuple(LayerReport(**layer) for layer in value["layers"])})

    def __str__(self) -> str:
        width = max([len(layer.name) for layer in self.layers] + [5])
        lines = [f"{'layer':<{width}}  {'kept in':<7}  {'error':>8}  {'weights':>11}  input range"]
        for layer in self.layers:
            kept = "float32" if layer.in_float else "int8"
            text = f"{layer.name:<{width}}  {kept:<7}  {layer.error:>8.2%}  {layer.weights:>11,}"
            lines.append(
                f"{text}  {layer.low:.4g} ... {layer.high:.4g}" + (f"  {layer.reason}" if layer.reason else "")
            )
        what = {"classes": "rows whose class changed", "variance": "squared error over variance"}
        watched = what.get(self.measure, f"loss of {self.measure}")
        allowed = "no guard" if self.guard is None else f"at most {self.guard:.4g} allowed"
        share = self.bytes / self.float_bytes
        lines.append(f"{watched}: {self.cost:.4g} ({allowed})")
        lines.append(f"weights: {self.bytes:,} of {self.float_bytes:,} bytes ({share:.3f} of float32)")
        return "\n".join(lines)
