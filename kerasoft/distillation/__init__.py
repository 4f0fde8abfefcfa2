"""Training a small model (the student) to answer as a large one (the teacher) does.

Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015); Romero et al., "FitNets" (2015).
"""

from .distiller import Distiller
from .losses import DistillationLoss, FeatureDistillation, LogitsDistillation

__all__ = ["DistillationLoss", "Distiller", "FeatureDistillation", "LogitsDistillation"]
