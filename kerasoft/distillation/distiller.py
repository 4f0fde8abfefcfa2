"""Distiller: a model that trains its student against labels and against its teacher."""

from __future__ import annotations

from typing import Any

from .. import metrics as metric_classes
from .. import ops, tree
from ..models import Model, Sequential
from .losses import loss_of

FINAL = "final_output"


class Distiller(Model):
    """Trains `student` with weight * (its own loss) + (1 - weight) * (its distance from `teacher`).

    Args:
        teacher: a trained model; it is frozen.
        student: the model to train; what the distiller predicts is what it predicts.
        distillation_losses: a `DistillationLoss` or a list of them.
        distillation_loss_weights: a number for each of a list; 1 by default.
        student_loss_weight: 0 (the teacher alone) to 1 (the labels alone).
        name: of this model.

    Raises:
        ValueError: models or losses that do not fit together.
    """

    def __init__(
        self,
        teacher: Any,
        student: Any,
        distillation_losses: Any,
        distillation_loss_weights: Any = None,
        student_loss_weight: float = 0.5,
        name: str = "distiller",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        _check_models(teacher, student)
        self.teacher, self.student = teacher, student
        if not isinstance(student_loss_weight, (int, float)):
            raise ValueError(f"student_loss_weight must be a number, got {type(student_loss_weight)}")
        if not 0.0 <= student_loss_weight <= 1.0:
            raise ValueError(f"student_loss_weight must be between 0.0 and 1.0, got {student_loss_weight}")
        self.student_loss_weight = student_loss_weight
        if distillation_losses is None:
            raise ValueError(
                "'distillation_losses' cannot be `None`. Provide a distillation loss (e.g., LogitsDistillation or "
                "FeatureDistillation) or a list of distillation losses."
            )
        if not isinstance(distillation_losses, (list, tuple)):
            distillation_losses, distillation_loss_weights = [distillation_losses], [1.0]
        weights = [1.0] * len(distillation_losses) if distillation_loss_weights is None else distillation_loss_weights
        if len(weights) != len(distillation_losses):
            raise ValueError(
                f"Number of distillation_loss_weights ({len(weights)}) must match number of distillation_losses "
                f"({len(distillation_losses)})"
            )
        self.distillation_losses, self.distillation_loss_weights = list(distillation_losses), list(weights)
        for loss in self.distillation_losses:
            loss.validate_model_compatibility(teacher, student)
        self._teacher_features = self._extractor(teacher, "teacher_layer_name")
        self._student_features = self._extractor(student, "student_layer_name")
        teacher.trainable = False
        self.student_loss_tracker = metric_classes.Mean(name="student_loss")
        self.distillation_loss_tracker = metric_classes.Mean(name="distillation_loss")
        self.total_loss_tracker = metric_classes.Mean(name="total_loss")

    def _extractor(self, model: Any, attribute: str) -> Any:
        """A model that gives the layers named by the losses, and the final output; None when none is named."""
        names = [name for name in (getattr(loss, attribute, None) for loss in self.distillation_losses) if name]
        if not names:
            return None
        final = model.layers[-1].output if isinstance(model, Sequential) else model.output
        outputs = {FINAL: final, **{name: model.get_layer(name=name).output for name in names}}
        return Model(inputs=model.inputs, outputs=outputs, name=f"{model.name}_multi_feature_extractor")

    def compile(self, optimizer: Any = "adam", loss: Any = None, metrics: Any = None, **kwargs: Any) -> None:
        """As of a model; `loss` is the student's own.

        Raises:
            ValueError: no loss, or metrics that are not a list.
        """
        if loss is None:
            raise ValueError("'loss' cannot be `None`.")
        if metrics is not None and not isinstance(metrics, (list, tuple)):
            raise ValueError(f"metrics must be a list or tuple, got {type(metrics)}")
        self._student_loss = tree.map_structure(loss_of, loss)
        super().compile(optimizer=optimizer, loss=None, metrics=metrics, **kwargs)

    def call(self, inputs: Any, training: Any = None) -> Any:
        return self.student(inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: Any = True
    ) -> Any:
        """The weighted sum of the student's loss and its distance from the teacher."""
        if y_pred is None:
            y_pred = self(x, training=training)
        student_loss: Any = 0.0
        if self.student_loss_weight > 0.0 and y is not None:
            values = tree.map_structure(lambda loss, t, p: loss(t, p), self._student_loss, y, y_pred)
            student_loss = sum(ops.mean(value) for value in tree.flatten(values))
        distance: Any = 0.0
        if self.student_loss_weight < 1.0:
            distance = self._distance(x, y_pred)
        total = self.student_loss_weight * student_loss + (1.0 - self.student_loss_weight) * distance
        self.student_loss_tracker.update_state(student_loss)
        self.distillation_loss_tracker.update_state(distance)
        self.total_loss_tracker.update_state(total)
        return total

    def _distance(self, x: Any, y_pred: Any) -> Any:
        if self._teacher_features is not None:
            teacher = self._teacher_features(x, training=False)
        else:
            teacher = {FINAL: self.teacher(x, training=False)}
        student = {FINAL: y_pred} if self._student_features is None else self._student_features(x, training=True)
        total: Any = 0.0
        for loss, weight in zip(self.distillation_losses, self.distillation_loss_weights, strict=True):
            theirs, ours = teacher[FINAL], y_pred
            if getattr(loss, "teacher_layer_name", None) is not None:
                theirs = teacher[loss.teacher_layer_name]
                ours = student[getattr(loss, "student_layer_name", None) or FINAL]
            loss.validate_outputs(theirs, ours)
            value = loss.compute_loss(theirs, ours)
            if len(getattr(value, "shape", ())):
                raise ValueError(
                    f"Distillation loss {type(loss).__name__} returned a non-scalar loss with shape {value.shape}. The "
                    "compute_loss method must return a scalar tensor."
                )
            total = total + weight * value
        return total

    def get_config(self) -> dict[str, Any]:
        from ..saving import serialize_keras_object

        return {
            **super().get_config(),
            "teacher": serialize_keras_object(self.teacher),
            "student": serialize_keras_object(self.student),
            "distillation_losses": [serialize_keras_object(loss) for loss in self.distillation_losses],
            "distillation_loss_weights": self.distillation_loss_weights,
            "student_loss_weight": self.student_loss_weight,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Distiller:
        from ..saving import deserialize_keras_object

        made = {name: deserialize_keras_object(config[name]) for name in ("teacher", "student")}
        found = [deserialize_keras_object(loss) for loss in config["distillation_losses"]]
        return cls(**{**config, **made, "distillation_losses": found})


def _check_models(teacher: Any, student: Any) -> None:
    """Raises ValueError unless both are models whose inputs and outputs agree."""
    for kind, model in (("Teacher", teacher), ("Student", student)):
        if not isinstance(model, Model):
            raise ValueError(f"{kind} must be a keras.Model, got {type(model)}")
    for kind in ("input", "output"):
        pair = [getattr(model, f"{kind}s", None) for model in (teacher, student)]
        if pair[0] is None or pair[1] is None:
            continue
        for theirs, ours in zip(*pair, strict=True):
            a, b = theirs.shape, ours.shape
            if len(a) != len(b):
                raise ValueError(
                    f"Teacher and student {kind} shapes have different dimensions. Teacher: {a}, Student: {b}."
                )
            if any(None not in (m, n) and m != n for m, n in zip(a, b, strict=True)):
                raise ValueError(
                    f"Teacher and student {kind} shapes are incompatible. Teacher: {a}, Student: {b}. All dimensions must "
                    "match."
                )
            if theirs.dtype != ours.dtype:
                raise ValueError(
                    f"Teacher and student {kind} dtypes must match. Teacher: {theirs.dtype}, Student: {ours.dtype}."
                )
