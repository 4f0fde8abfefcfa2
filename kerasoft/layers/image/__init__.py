"""Layers that change images: sizes, random augmentation, colours, and what goes with images."""

from .base import ImageLayer
from .box_count import MaxNumBoundingBoxes
from .color import (
    RandomBrightness,
    RandomColorDegeneration,
    RandomColorJitter,
    RandomContrast,
    RandomGrayscale,
    RandomHue,
    RandomInvert,
    RandomPosterization,
    RandomSaturation,
    Solarization,
)
from .filtering import RandomErasing, RandomGaussianBlur, RandomSharpness
from .geometry import RandomFlip, RandomRotation, RandomShear, RandomTranslation, RandomZoom
from .histogram import AutoContrast, ContrastLimitedAdaptiveHistogramEqualization, Equalization
from .mixing import CutMix, MixUp
from .policies import AugMix, RandAugment
from .sizing import CenterCrop, RandomCrop, Resizing
from .warping import RandomElasticTransform, RandomPerspective

__all__ = [
    "AugMix", "AutoContrast", "CenterCrop", "ContrastLimitedAdaptiveHistogramEqualization", "CutMix", "Equalization",
    "MaxNumBoundingBoxes", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter",
    "RandomContrast", "RandomCrop", "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur",
    "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation",
    "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "Resizing", "Solarization",
    "ImageLayer",
]  # fmt: skip
