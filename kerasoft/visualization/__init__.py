"""Pictures of images with boxes and masks on them."""

import importlib

_NAMES = {
    "draw_bounding_boxes": "boxes",
    "draw_segmentation_masks": "masks",
    "plot_bounding_box_gallery": "galleries",
    "plot_image_gallery": "galleries",
    "plot_segmentation_mask_gallery": "galleries",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'kerasoft.visualization' has no attribute {name!r}")
