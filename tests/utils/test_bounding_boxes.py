"""Boxes against Keras' own."""

import itertools

import keras
import numpy as np
import pytest

import kerasoft as ks

theirs, ours = keras.utils.bounding_boxes, ks.utils.bounding_boxes
FORMATS = ("xyxy", "yxyx", "xywh", "center_xywh", "center_yxhw", "rel_xyxy", "rel_yxyx", "rel_xywh", "rel_center_xywh")
RANDOM = np.random.RandomState(0)
BOXES = np.sort(RANDOM.uniform(1, 9, (2, 3, 2, 2)), 2).reshape(2, 3, 4).astype("float32")
OTHERS = np.sort(RANDOM.uniform(1, 9, (2, 2, 2, 2)), 2).reshape(2, 2, 4).astype("float32")


def close(found, expected, **tolerance):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("source, target", list(itertools.product(FORMATS, FORMATS)))
def test_formats(source, target):
    arguments = {"height": 10, "width": 20}
    close(
        ours.convert_format(BOXES, source, target, **arguments),
        theirs.convert_format(BOXES, source, target, **arguments),
    )


def test_errors_of_formats():
    for arguments, text in (
        ((np.zeros((2, 3)), "xyxy", "xywh"), "last dimension of 4"),
        ((BOXES, "xyxy", "corners"), "Invalid source or target format"),
        ((BOXES, "xyxy", "rel_xyxy"), "must receive `height` and `width`"),
    ):
        for library in (theirs, ours):
            with pytest.raises(ValueError, match=text):
                library.convert_format(*arguments)


def test_overlap():
    for a, b in ((BOXES, OTHERS), (BOXES[0], OTHERS[0])):
        close(ours.compute_iou(a, b, "xyxy"), theirs.compute_iou(a, b, "xyxy"))
    padded = np.concatenate([OTHERS, -np.ones((2, 1, 4), "float32")], 1)
    close(
        ours.compute_iou(BOXES, padded, "xyxy", use_masking=True),
        theirs.compute_iou(BOXES, padded, "xyxy", use_masking=True),
    )
    shape = (10, 20, 3)
    close(
        ours.compute_iou(BOXES / 10, OTHERS / 10, "rel_xywh", image_shape=shape),
        theirs.compute_iou(BOXES / 10, OTHERS / 10, "rel_xywh", image_shape=shape),
    )
    close(ours.compute_ciou(BOXES[:, :2], OTHERS, "xyxy"), theirs.compute_ciou(BOXES[:, :2], OTHERS, "xyxy"))
    with pytest.raises(ValueError, match="expects boxes1 to be batched"):
        ours.compute_iou(BOXES[0, 0], OTHERS, "xyxy")
    with pytest.raises(ValueError, match="`image_shape` argument must be provided"):
        ours.compute_iou(BOXES, OTHERS, "rel_xyxy")


def test_deltas():
    for encoding in ("center_yxhw", "center_xywh"):
        arguments = ("xyxy", "xywh", encoding, [0.1, 0.1, 0.2, 0.2])
        deltas = ours.encode_box_to_deltas(BOXES, BOXES[::-1].copy(), *arguments)
        close(deltas, theirs.encode_box_to_deltas(BOXES, BOXES[::-1].copy(), *arguments))
        back = ours.decode_deltas_to_boxes({"a": BOXES}, {"a": deltas}, *arguments)["a"]
        close(back, BOXES[::-1])
    with pytest.raises(ValueError, match="`variance` must be length 4"):
        ours.encode_box_to_deltas(BOXES, BOXES, "xyxy", "xyxy", variance=[1.0])


def test_motions():
    labels = np.array([[1, 2, 3], [4, 5, 6]])
    given = {"boxes": BOXES * 2 - 6, "labels": labels}
    found = ours.clip_to_image_size(given, 5, 7)
    expected = theirs.clip_to_image_size(given, 5, 7)
    close(found["boxes"], expected["boxes"])
    assert np.asarray(found["labels"]).tolist() == np.asarray(expected["labels"]).tolist()
    close(ours.crop(BOXES, 1, 2, 4, 5), theirs.crop(BOXES, 1, 2, 4, 5))
    close(ours.pad(BOXES, 1, 2), theirs.pad(BOXES, 1, 2))
    parts = [np.array(v, "float32") for v in ([10, -20], [0.1, 0], [0, 0.2], [1, 1.5], [5, 0], [0, 3])]
    close(ours.affine_transform(BOXES, *parts, 10, 20), theirs.affine_transform(BOXES, *parts, 10, 20))
