"""How far a student is from its teacher."""

from __future__ import annotations

from typing import Any

from .. import losses, ops, tree


def loss_of(identifier: Any) -> Any:
    """A loss by name, or as given."""
    return losses.get(identifier) if isinstance(identifier, str) else identifier


def _serialized(loss: Any) -> Any:
    from ..saving import serialize_keras_object

    return serialize_keras_object(loss)


def _deserialized(loss: Any) -> Any:
    if isinstance(loss, dict) and "class_name" in loss or isinstance(loss, str):
        return losses.deserialize(loss)
    return tree.map_structure(loss_of, loss)


def same_structure(a: Any, b: Any) -> bool:
    """Whether two nested values have their leaves in the same places."""
    return [path for path, _ in tree.flatten_with_path(a)] == [path for path, _ in tree.flatten_with_path(b)]


class DistillationLoss:
    """Base class: a subclass defines `compute_loss(teacher_outputs, student_outputs) -> scalar`."""

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("Subclasses must implement compute_loss")

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Raises ValueError when the outputs are not comparable."""
        if not same_structure(teacher_outputs, student_outputs):
            raise ValueError(
                "`teacher_outputs` and `student_outputs` don't have the same structure: "
                f"{_paths(teacher_outputs)} and {_paths(student_outputs)}"
            )

    def validate_model_compatibility(self, teacher: Any, student: Any) -> None:
        """Raises ValueError when the models do not have what this loss needs."""


def _paths(value: Any) -> list:
    return [path for path, _ in tree.flatten_with_path(value)]


def _total(loss: Any, compare: Any, teacher: Any, student: Any) -> Any:
    """The sum over outputs of `compare(loss, teacher, student)`; outputs whose loss is None count nothing."""
    values = tree.map_structure(lambda one, t, s: 0.0 if one is None else compare(one, t, s), loss, teacher, student)
    flat = tree.flatten(values)
    total = flat[0]
    for value in flat[1:]:
        total = ops.add(total, value)
    return total


class LogitsDistillation(DistillationLoss):
    """Compares the outputs before softmax, softened.

    With the Kullback-Leibler divergence: temperature^2 * KL(softmax(teacher / temperature), softmax(student / temperature)).

    Args:
        temperature: positive; the higher, the softer.
        loss: a loss, its name, or a structure of them, one for each output (None leaves one out).

    Raises:
        ValueError: no loss at all, or a temperature that is not a positive number.
    """

    def __init__(self, temperature: float = 3.0, loss: Any = "kl_divergence"):
        self.temperature = temperature
        self.loss = tree.map_structure(loss_of, loss)
        if all(one is None for one in tree.flatten(self.loss)):
            raise ValueError("At least one loss must be non-`None`.")
        if not isinstance(temperature, (int, float)):
            raise ValueError(f"temperature must be a number, got {type(temperature)}")
        if temperature <= 0.0:
            raise ValueError("temperature must be positive.")

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """The scalar loss."""

        def compare(loss: Any, teacher: Any, student: Any) -> Any:
            teacher, student = ops.divide(teacher, self.temperature), ops.divide(student, self.temperature)
            if isinstance(loss, losses.KLDivergence):
                teacher, student = ops.softmax(teacher, axis=-1), ops.softmax(student, axis=-1)
                return ops.mean(loss(teacher, student)) * self.temperature**2
            return ops.mean(loss(teacher, student))

        return _total(self.loss, compare, teacher_outputs, student_outputs)

    def get_config(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "loss": _serialized(self.loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LogitsDistillation:
        return cls(**{**config, "loss": _deserialized(config["loss"])})


class FeatureDistillation(DistillationLoss):
    """Compares the outputs of two layers, or of the whole models.

    Args:
        loss: a loss, its name, or a structure of them, one for each output.
        teacher_layer_name, student_layer_name: layers inside; None compares the models' outputs.

    Raises:
        ValueError: no loss at all.
    """

    def __init__(self, loss: Any = "mse", teacher_layer_name: str | None = None, student_layer_name: str | None = None):
        self.teacher_layer_name, self.student_layer_name = teacher_layer_name, student_layer_name
        self.loss = tree.map_structure(loss_of, loss)
        if all(one is None for one in tree.flatten(self.loss)):
            raise ValueError("The `loss` argument in `FeatureDistillation` must contain at least one non-`None` value.")

    def validate_model_compatibility(self, teacher: Any, student: Any) -> None:
        """Raises ValueError for a layer that is not there, or models whose inner layers cannot be reached."""
        names = (self.teacher_layer_name, self.student_layer_name)
        if names != (None, None):
            subclassed = [
                kind
                for kind, model in (("teacher", teacher), ("student", student))
                if getattr(model, "inputs", None) is None
            ]
            if subclassed:
                raise ValueError(
                    "FeatureDistillation with specific layer names requires Functional or Sequential models. The "
                    f"{' and '.join(subclassed)} model(s) appear to be subclassed (no symbolic inputs/outputs). Either "
                    "use Functional/Sequential models, or use FeatureDistillation without layer names (to distill final "
                    "outputs only), or use LogitsDistillation instead."
                )
        for kind, model, name in (("teacher", teacher, names[0]), ("student", student, names[1])):
            if name is not None:
                try:
                    model.get_layer(name=name)
                except ValueError as error:
                    raise ValueError(f"In {kind} model: {error}") from error

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Raises ValueError when the outputs are not comparable."""
        super().validate_outputs(teacher_outputs, student_outputs)
        if not same_structure(self.loss, teacher_outputs):
            raise ValueError(
                f"Loss structure mismatch. Loss structure: {_paths(self.loss)}, Output structure: "
                f"{_paths(teacher_outputs)}."
            )

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """The scalar loss."""
        return _total(self.loss, lambda loss, t, s: ops.mean(loss(t, s)), teacher_outputs, student_outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            "loss": _serialized(self.loss),
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureDistillation:
        return cls(**{**config, "loss": _deserialized(config["loss"])})
