"""Images side by side, with labels, boxes or masks."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from .. import config
from .boxes import batch_of_images, draw_bounding_boxes
from .masks import draw_segmentation_masks


def plot_image_gallery(
    images: Any,
    y_true: Any = None,
    y_pred: Any = None,
    label_map: dict | None = None,
    rows: int | None = None,
    cols: int | None = None,
    value_range: Any = (0, 255),
    scale: float = 2,
    path: Any = None,
    show: bool | None = None,
    transparent: bool = True,
    dpi: int = 60,
    legend_handles: Any = None,
    data_format: str | None = None,
) -> None:
    """Shows a batch of images in rows, or writes them to a file.

    Args:
        images: a batch.
        y_true, y_pred: class numbers to write above the images, named by `label_map`.
        rows, cols: a square by default.
        value_range: lowest and highest value of a pixel.
        scale: inches of an image.
        path: file to write.
        show: whether to open a window; by default when there is no path.
        transparent, dpi, legend_handles: as in Matplotlib.
    """
    import matplotlib.pyplot as plt

    if path is not None and show:
        raise ValueError("plot_gallery() expects either `path` to be set, or `show` to be true.")
    if (y_true is not None or y_pred is not None) and label_map is None:
        raise ValueError("If `y_true` or `y_pred` are provided, a `label_map` must also be provided.")
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError("`plot_images_gallery()` requires you to batch your `np.array` samples together.")
    if (data_format or config.image_data_format()) == "channels_first":
        images = images.transpose(0, 2, 3, 1)
    rows = rows or math.ceil(math.sqrt(len(images)))
    cols = cols or math.ceil(len(images) / rows)
    low, high = value_range
    pixels = np.clip((images.astype("float64") - low) / (high - low) * 255, 0, 255).astype("uint8")
    figure, axes = plt.subplots(
        nrows=rows, ncols=cols, figsize=(cols * scale, rows * scale), frameon=False, squeeze=False, layout="tight"
    )
    if legend_handles is not None:
        figure.legend(handles=legend_handles, loc="lower center")
    for index, axis in enumerate(axes.flat):
        axis.axis("off")
        if index >= len(pixels):
            continue
        axis.imshow(pixels[index])
        axis.margins(x=0, y=0)
        titles = [
            f"{kind}: {(label_map or {}).get(int(np.asarray(labels)[index]), 'Unknown')}"
            for kind, labels in (("Label", y_true), ("Pred", y_pred))
            if labels is not None and index < len(labels)
        ]
        if titles:
            axis.set_title("  ".join(titles), fontsize=8)
    if path is not None:
        figure.savefig(path, pad_inches=0, bbox_inches="tight", transparent=transparent, dpi=dpi)
        plt.close(figure)
    elif show or show is None:
        plt.show()
        plt.close(figure)


def plot_bounding_box_gallery(
    images: Any,
    bounding_box_format: str,
    y_true: Any = None,
    y_pred: Any = None,
    value_range: Any = (0, 255),
    true_color: Any = (0, 188, 212),
    pred_color: Any = (255, 235, 59),
    line_thickness: int = 2,
    font_scale: float = 1.0,
    text_thickness: Any = None,
    class_mapping: dict | None = None,
    ground_truth_mapping: dict | None = None,
    prediction_mapping: dict | None = None,
    legend: bool = False,
    legend_handles: Any = None,
    rows: int | None = None,
    cols: int | None = None,
    data_format: str | None = None,
    **kwargs: Any,
) -> None:
    """`plot_image_gallery` with true and predicted boxes drawn in; see `draw_bounding_boxes`."""
    images = batch_of_images(images)
    if (data_format or config.image_data_format()) == "channels_first":
        images = images.transpose(0, 2, 3, 1)
    draw = functools.partial(
        draw_bounding_boxes,
        bounding_box_format=bounding_box_format,
        line_thickness=line_thickness,
        text_thickness=text_thickness,
        font_scale=font_scale,
        data_format="channels_last",
    )
    if y_true is not None:
        images = draw(images, y_true, color=true_color, class_mapping=ground_truth_mapping or class_mapping)
    if y_pred is not None:
        images = draw(images, y_pred, color=pred_color, class_mapping=prediction_mapping or class_mapping)
    if legend:
        from matplotlib import patches

        if legend_handles:
            raise ValueError(
                "Only pass `legend` OR `legend_handles` to `keras.visualization.plot_bounding_box_gallery()`."
            )
        legend_handles = [
            patches.Patch(color=np.array(color) / 255.0, label=label)
            for color, label in ((true_color, "Ground Truth"), (pred_color, "Prediction"))
        ]
    plot_image_gallery(
        images, value_range=value_range, legend_handles=legend_handles, rows=rows, cols=cols,
        data_format="channels_last", **kwargs,
    )  # fmt: skip


def plot_segmentation_mask_gallery(
    images: Any,
    num_classes: int,
    value_range: Any = (0, 255),
    y_true: Any = None,
    y_pred: Any = None,
    color_mapping: dict | None = None,
    blend: bool = True,
    alpha: float = 0.8,
    ignore_index: int = -1,
    data_format: str | None = None,
    **kwargs: Any,
) -> None:
    """One row an image: the image, its true mask, its predicted mask; see `draw_segmentation_masks`."""
    first = (data_format or config.image_data_format()) == "channels_first"
    images = batch_of_images(images)
    images = images.transpose(0, 2, 3, 1) if first else images
    columns = [images]
    for masks in (y_true, y_pred):
        if masks is not None:
            masks = np.asarray(masks).astype("int32")
            masks = masks.transpose(0, 2, 3, 1) if first else masks
            columns.append(
                draw_segmentation_masks(
                    images, masks, num_classes, color_mapping, alpha, blend, ignore_index, "channels_last"
                )
            )
    shown = np.stack(columns, 1).reshape(-1, *images.shape[1:])
    plot_image_gallery(
        shown, value_range=value_range, rows=len(images), cols=len(columns), data_format="channels_last", **kwargs
    )
