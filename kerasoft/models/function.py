"""Function: the operations between symbolic inputs and outputs as one operation, without weights or training."""

from __future__ import annotations

from typing import Any

from .. import tree
from ..tensors import KerasTensor, Operation, infer, known_shape
from .graph import map_graph


class Function(Operation):
    """What computes `outputs` from `inputs`.

    Args:
        inputs, outputs: structures of KerasTensors.
        name: of the operation.

    Raises:
        ValueError: no inputs or no outputs. GraphError: outputs that the inputs do not lead to.

    >>> import kerasoft as ks
    >>> x = ks.KerasTensor((None, 2))
    >>> double = ks.Function(x, x * 2.0)
    >>> double(ks.ops.array([[1.0, 2.0]])).tolist()
    [[2.0, 4.0]]
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None):
        super().__init__(name=name)
        self._inputs_struct, self._outputs_struct = inputs, outputs
        self._inputs, self._outputs = tree.flatten(inputs), tree.flatten(outputs)
        for what, found in (("inputs", self._inputs), ("outputs", self._outputs)):
            if not found:
                raise ValueError(f"`{what}` argument cannot be empty. Received:\ninputs={inputs}\noutputs={outputs}")
        self._graph = map_graph(self._inputs, self._outputs)

    @property
    def operations(self) -> list[Any]:
        return list(self._graph.operations)

    @property
    def inputs(self) -> list[KerasTensor]:
        return list(self._inputs)

    @property
    def outputs(self) -> list[KerasTensor]:
        return list(self._outputs)

    def call(self, inputs: Any) -> Any:
        """The outputs for new inputs."""
        self._check(inputs)
        return self._compute(inputs)

    def _compute(self, inputs: Any) -> Any:
        return tree.pack_as(self._outputs_struct, self._graph.run(self._inputs, tree.flatten(inputs), self._outputs))

    def compute_output_spec(self, inputs: Any) -> Any:
        self._check(inputs)
        return infer(self._compute, (inputs,), {})

    def compute_output_shape(self, input_shape: Any) -> Any:
        references = iter(self._inputs)

        def symbolic(shape: Any) -> Any:
            if isinstance(shape, dict):
                return {key: symbolic(shape[key]) for key in sorted(shape)}
            if any(isinstance(size, (list, tuple, dict)) for size in shape):
                return [symbolic(part) for part in shape]
            return KerasTensor(shape, next(references).dtype)

        return tree.map_structure(lambda x: x.shape, self.compute_output_spec(symbolic(input_shape)))

    def _check(self, inputs: Any) -> None:
        if not tree.same_structure(inputs, self._inputs_struct):
            raise ValueError(
                "Function was called with an invalid input structure. Expected input structure: "
                f"{self._inputs_struct}\nReceived input structure: {inputs}"
            )
        for x, reference in zip(tree.flatten(inputs), self._inputs, strict=True):
            shape = known_shape(x)
            fits = len(shape) == len(reference.shape) and all(
                a is None or b is None or a == b for a, b in zip(shape, reference.shape, strict=True)
            )
            if not fits:
                raise ValueError(
                    f"{type(self).__name__} was passed incompatible inputs. For input '{reference.name}', expected shape "
                    f"{reference.shape}, but received instead a tensor with shape {shape}."
                )
