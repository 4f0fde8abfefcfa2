"""Boxes around things in images: formats, overlaps, what cropping and turning an image does to them."""

from .deltas import decode_deltas_to_boxes, encode_box_to_deltas
from .formats import convert_format
from .motions import affine_transform, clip_to_image_size, crop, pad
from .overlap import compute_ciou, compute_iou

__all__ = [
    "affine_transform",
    "clip_to_image_size",
    "compute_ciou",
    "compute_iou",
    "convert_format",
    "crop",
    "decode_deltas_to_boxes",
    "encode_box_to_deltas",
    "pad",
]
