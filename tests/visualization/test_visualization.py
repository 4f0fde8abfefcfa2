"""Boxes and masks in images, and galleries of them."""

import keras
import matplotlib
import numpy as np
import pytest

import kerasoft as ks

matplotlib.use("Agg")


def test_boxes_are_drawn():
    images = np.zeros((1, 40, 40, 3), "float32")
    boxes = {"boxes": np.array([[[10, 12, 20, 25], [0, 0, 5, 5]]], "float32"), "labels": np.array([[0, -1]])}
    drawn = ks.visualization.draw_bounding_boxes(images, boxes, "xyxy", color=(1, 2, 3), line_thickness=2)
    assert drawn.dtype == "uint8" and drawn[0, 12, 15].tolist() == [1, 2, 3] and drawn[0, 20, 10].tolist() == [1, 2, 3]
    assert not drawn[0, 18, 15].any() and not drawn[0, :6, :6].any() and not images.any()
    boxes["confidences"] = np.array([[0.5, 0.5]])
    named = ks.visualization.draw_bounding_boxes(images, boxes, "xyxy", {0: "cat"}, color=(255, 0, 0), font_scale=0.4)
    assert named[..., 0].astype(bool).sum() > drawn[..., 0].astype(bool).sum()


@pytest.mark.parametrize("arguments", [{}, {"num_classes": 3, "alpha": 0.5}, {"blend": False, "num_classes": 2},
                                       {"color_mapping": {0: (9, 9, 9), 1: (5, 6, 7)}, "num_classes": 2}])  # fmt: skip
def test_masks(arguments):
    random = np.random.RandomState(0)
    images = random.uniform(0, 255, (2, 4, 5, 3)).astype("float32")
    masks = random.randint(-1, 4, (2, 4, 5, 1))
    found = ks.visualization.draw_segmentation_masks(images, masks, **arguments)
    expected = np.asarray(keras.visualization.draw_segmentation_masks(images, masks, **arguments))
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=1)


def test_errors():
    v = ks.visualization
    with pytest.raises(ValueError, match="must be batched 4D tensor"):
        v.draw_bounding_boxes(np.zeros((4, 4, 3)), {}, "xyxy")
    with pytest.raises(TypeError, match="`bounding_boxes` should be a dict"):
        v.draw_bounding_boxes(np.zeros((1, 4, 4, 3)), [], "xyxy")
    with pytest.raises(TypeError, match="must be in integer dtype"):
        v.draw_segmentation_masks(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 1)))
    with pytest.raises(ValueError, match="a `label_map` must also be provided"):
        v.plot_image_gallery(np.zeros((1, 4, 4, 3)), y_true=[0])
    with pytest.raises(ValueError, match="expects either `path`"):
        v.plot_image_gallery(np.zeros((1, 4, 4, 3)), path="x.png", show=True)


def test_galleries(tmp_path):
    images = np.random.RandomState(0).uniform(0, 1, (3, 8, 8, 3))
    v, path = ks.visualization, tmp_path / "gallery.png"
    v.plot_image_gallery(images, y_true=[0, 1, 0], label_map={0: "a"}, value_range=(0, 1), path=path)
    from PIL import Image

    with Image.open(path) as picture:
        assert picture.size[0] > 50
    boxes = {"boxes": np.ones((3, 1, 4)) * 3, "labels": np.zeros((3, 1), int)}
    v.plot_bounding_box_gallery(images, "xywh", boxes, boxes, legend=True, path=tmp_path / "boxes.png")
    masks = np.zeros((3, 8, 8, 1), int)
    v.plot_segmentation_mask_gallery(images, 2, y_true=masks, y_pred=masks, path=tmp_path / "masks.png")
    assert (tmp_path / "boxes.png").stat().st_size and (tmp_path / "masks.png").stat().st_size
