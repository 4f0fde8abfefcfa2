"""Batches from arrays and from folders of images, texts and recordings."""

import wave

import keras
import numpy as np
import pytest
from PIL import Image

import kerasoft as ks
from kerasoft.utils import resizing
from kerasoft.utils.batches import Batches, slices


def timeseries(data, targets, sequence_length, sequence_stride=1, sampling_rate=1, start_index=0, end_index=None):
    """Windows by their definition."""
    end = len(data) if end_index is None else end_index
    x, y = [], []
    begin = 0
    while start_index + begin + (sequence_length - 1) * sampling_rate < end and (
        targets is None or begin < len(targets)
    ):
        x.append([data[start_index + begin + i * sampling_rate] for i in range(sequence_length)])
        y.append(None if targets is None else targets[start_index + begin])
        begin += sequence_stride
    return np.array(x), np.array(y)


@pytest.mark.parametrize(
    "arguments",
    [{"sequence_length": 3}, {"sequence_length": 3, "sequence_stride": 2, "sampling_rate": 2},
     {"sequence_length": 2, "start_index": 3, "end_index": 9}],
)  # fmt: skip
def test_timeseries(arguments):
    data, targets = np.arange(24).reshape(12, 2), np.arange(12) * 10
    x, y = timeseries(data, targets, **arguments)
    batches = list(ks.utils.timeseries_dataset_from_array(data, targets, batch_size=4, **arguments))
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), x)
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), y)
    assert all(len(b[0]) == 4 for b in batches[:-1])
    alone = ks.utils.timeseries_dataset_from_array(data, None, batch_size=None, shuffle=True, seed=1, **arguments)
    first, second = ([w.tolist() for w in alone] for _ in range(2))
    assert (
        sorted(first) == sorted(second) == sorted(timeseries(data, None, **arguments)[0].tolist()) and first != second
    )


@pytest.mark.parametrize(
    "arguments",
    [{"start_index": -1}, {"start_index": 9}, {"start_index": 3, "end_index": 2}, {"end_index": 9}, {"end_index": -1},
     {"sampling_rate": 0}, {"sampling_rate": 9}, {"sequence_stride": 0}, {"sequence_stride": 9}, {"format": "x"}],
)  # fmt: skip
def test_errors_of_timeseries_are_keras(arguments):
    texts = []
    for library in (keras, ks):
        with pytest.raises(ValueError) as error:
            library.utils.timeseries_dataset_from_array(np.zeros(8), None, 2, **arguments)
        texts.append(str(error.value))
    assert texts[0] == texts[1]


def test_batches():
    data = slices((np.arange(5), np.arange(5) * 2)).batch(2)
    assert len(data) == data.cardinality() == 3 and data.num_batches == 3 and [len(x) for x, _ in data] == [2, 2, 1]
    assert [x.tolist() for x, _ in data.map(lambda x, y: (x + y, y)).take(1)] == [[0, 3]]
    assert [int(x) for x, _ in data.skip(1).unbatch()] == [2, 3, 4]
    assert len(slices(np.arange(5)).batch(2, drop_remainder=True)) == 2
    calls = []
    cached = Batches(2, lambda i: calls.append(i) or np.float32(i)).cache().prefetch(2)
    assert list(cached) == list(cached.as_numpy_iterator()) and calls == [0, 1]
    with pytest.raises(IndexError, match="index 3 of a data set of 3 elements"):
        data[3]
    assert data[-1][0].tolist() == [4]


def test_fit_takes_batches():
    x = np.random.RandomState(0).standard_normal((10, 3)).astype("float32")
    data = slices((x, x.sum(1, keepdims=True))).batch(5)
    model = ks.Sequential([ks.Input((3,)), ks.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(data, epochs=3, verbose=0, validation_data=data).history
    assert history["loss"][-1] < history["loss"][0] and len(history["val_loss"]) == 3
    assert model.predict(data.map(lambda x, y: x), verbose=0).shape == (10, 1)


@pytest.fixture
def photos(tmp_path):
    """Two classes of images of two sizes; the colour tells the image."""
    for c, name in enumerate(("cats", "dogs")):
        (tmp_path / name).mkdir()
        for i in range(4):
            pixels = np.full((4 + i % 2, 6, 3), 10 * i + 100 * c, "uint8")
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    (tmp_path / "cats" / "notes.txt").write_text("no image")
    return tmp_path


def test_images(photos, capsys):
    arguments = {"image_size": (4, 4), "shuffle": False, "batch_size": 3}
    data = ks.utils.image_dataset_from_directory(photos, **arguments)
    assert "Found 8 files belonging to 2 classes." in capsys.readouterr().out
    assert data.class_names == ["cats", "dogs"] and [p.rsplit("/", 1)[1] for p in data.file_paths[:2]] == [
        "0.png",
        "1.png",
    ]
    batches = list(data)
    assert [x.shape for x, _ in batches] == [(3, 4, 4, 3), (3, 4, 4, 3), (2, 4, 4, 3)] and batches[0][
        0
    ].dtype == "float32"
    x, y = (np.concatenate(parts) for parts in zip(*batches))
    np.testing.assert_allclose(x[:, 1, 1, 0], [0, 10, 20, 30, 100, 110, 120, 130], rtol=1e-5)
    assert y.tolist() == [0, 0, 0, 0, 1, 1, 1, 1] and y.dtype == "int32"
    for mode, shape in (("binary", (3, 1)), ("categorical", (3, 2))):
        labels = ks.utils.image_dataset_from_directory(photos, label_mode=mode, verbose=False, **arguments)[1][1]
        assert labels.shape == shape and labels.dtype == "float32" and labels[-1].tolist()[-1] == 1.0
    gray = ks.utils.image_dataset_from_directory(
        photos, None, color_mode="grayscale", data_format="channels_first", verbose=False, **arguments
    )
    assert gray[0].shape == (3, 1, 4, 4)
    single = ks.utils.image_dataset_from_directory(photos, class_names=["dogs"], batch_size=None, verbose=False)
    assert len(single) == 4 and single[0][0].shape == (256, 256, 3)


def test_shuffled_and_split_files_are_keras_choice(photos):
    """The same seed puts the same files into the same part."""
    from keras.src.utils import dataset_utils

    train, validation = ks.utils.image_dataset_from_directory(
        photos, validation_split=0.25, subset="both", seed=5, image_size=4, verbose=False
    )
    paths, labels, _ = dataset_utils.index_directory(str(photos), "inferred", (".png",), seed=5, verbose=False)
    assert train.file_paths == paths[:6] and validation.file_paths == paths[6:]
    assert validation[0][1].tolist() == labels[6:].tolist()
    alone = ks.utils.image_dataset_from_directory(
        photos, validation_split=0.25, subset="validation", seed=5, verbose=False
    )
    assert alone.file_paths == paths[6:]
    orders = [np.concatenate([x[:, 0, 0, 0] for x, _ in train]).tolist() for _ in range(3)]
    assert sorted(orders[0]) == sorted(orders[1]) and (orders[0] != orders[1] or orders[1] != orders[2])


@pytest.mark.parametrize(
    "arguments, text",
    [({"labels": 3}, "should be a list/tuple of integer labels"), ({"label_mode": "x"}, "`label_mode` argument must be one of"),
     ({"labels": [0], "class_names": ["a"]}, "You can only pass `class_names`"), ({"color_mode": "x"}, "`color_mode` must be"),
     ({"image_size": (1, 2, 3)}, "Invalid `image_size` value"), ({"interpolation": "x"}, "Argument `interpolation` should"),
     ({"validation_split": 2}, "`validation_split` must be between"), ({"subset": "training"}, "If `subset` is set"),
     ({"validation_split": 0.5, "subset": "x"}, '`subset` must be either "training"'),
     ({"validation_split": 0.5, "subset": "training"}, "you must provide a `seed`"),
     ({"labels": [0, 1]}, "to match the number of files"), ({"class_names": ["cows"]}, "did not match the names"),
     ({"class_names": ["cats"], "label_mode": "binary"}, "there must be exactly 2 class_names"),
     ({"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True}, "Only one of `pad_to_aspect_ratio`")],
)  # fmt: skip
def test_errors_of_folders(photos, arguments, text):
    with pytest.raises(ValueError, match=text):
        ks.utils.image_dataset_from_directory(photos, verbose=False, **arguments)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic", "lanczos3", "lanczos5"])
@pytest.mark.parametrize("size", [(3, 9), (8, 4)])
def test_resizing_is_keras(interpolation, size):
    image = np.random.RandomState(0).uniform(0, 255, (5, 6, 3)).astype("float32")
    expected = np.asarray(keras.ops.image.resize(image, size, interpolation=interpolation))
    np.testing.assert_allclose(resizing.resize(image, size, interpolation), expected, rtol=1e-4, atol=1e-2)


def test_resizing_keeps_flat_images_flat_and_proportions():
    flat = np.full((5, 7, 1), 3.0, "float32")
    for interpolation in resizing.INTERPOLATIONS:
        np.testing.assert_allclose(resizing.resize(flat, (4, 11), interpolation), 3.0, rtol=1e-5)
    image = np.random.RandomState(0).uniform(0, 255, (5, 9, 3)).astype("float32")
    for prepare, option in (
        (resizing.crop_to_ratio, "crop_to_aspect_ratio"),
        (resizing.pad_to_ratio, "pad_to_aspect_ratio"),
    ):
        expected = np.asarray(keras.ops.image.resize(image, (4, 4), **{option: True}))
        np.testing.assert_allclose(resizing.resize(prepare(image, (4, 4)), (4, 4)), expected, atol=1e-3)


def test_texts(tmp_path):
    for name, text in (("a", "first ü"), ("b", "second")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.txt").write_text(text)
    data = ks.utils.text_dataset_from_directory(tmp_path, shuffle=False, max_length=5, verbose=False)
    x, y = data[0]
    assert x.dtype == object and x.tolist() == ["first", "secon"] and y.tolist() == [0, 1]
    with pytest.raises(ValueError, match="No text files found in directory"):
        (tmp_path / "empty").mkdir()
        ks.utils.text_dataset_from_directory(tmp_path / "empty", labels=None, verbose=False)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_recordings(tmp_path, width):
    for i, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        wave_values = np.linspace(-0.5, 0.5, 8 + 4 * i)
        with wave.open(str(tmp_path / name / "s.wav"), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(width)
            file.setframerate(100)
            stereo = np.repeat(wave_values, 2)
            if width == 1:
                data = (stereo * 128 + 128).astype("uint8").tobytes()
            else:
                scaled = (stereo * 2 ** (8 * width - 1)).astype("<i4")
                data = scaled.view("uint8").reshape(-1, 4)[:, :width].tobytes()
            file.writeframes(data)
    x, y = ks.utils.audio_dataset_from_directory(tmp_path, shuffle=False, verbose=False)[0]
    assert x.shape == (2, 12, 2) and x.dtype == "float32" and not x[0, 8:].any() and y.tolist() == [0, 1]
    np.testing.assert_allclose(x[1, :, 1], np.linspace(-0.5, 0.5, 12), atol=2.0 / 2 ** (8 * width - 1))
    half = ks.utils.audio_dataset_from_directory(
        tmp_path, shuffle=False, verbose=False, sampling_rate=50, output_sequence_length=5
    )[0][0]
    assert half.shape == (2, 5, 2)
    np.testing.assert_allclose(half[1, :5, 0], x[1, :10:2, 0], atol=1e-6)
    with pytest.raises(ValueError, match="Cannot set both `ragged`"):
        ks.utils.audio_dataset_from_directory(tmp_path, ragged=True, output_sequence_length=3)


def test_images_in_pillow(tmp_path):
    x = np.random.RandomState(0).uniform(0, 255, (5, 6, 3))
    for array in (x, x[..., :1], np.dstack([x, x[..., :1]])):
        ours, theirs = (np.asarray(library.utils.array_to_img(array)) for library in (ks, keras))
        np.testing.assert_array_equal(ours, theirs)
    for layout in ("channels_last", "channels_first"):
        given = x if layout == "channels_last" else x.transpose(2, 0, 1)
        image = ks.utils.array_to_img(given, data_format=layout, scale=False)
        back = ks.utils.img_to_array(image, data_format=layout)
        np.testing.assert_array_equal(back, given.astype("uint8").astype("float32"))
    ks.utils.save_img(tmp_path / "x.png", x, scale=False)
    for arguments in ({}, {"color_mode": "grayscale", "target_size": (3, 4)},
                      {"target_size": (3, 3), "interpolation": "bilinear", "keep_aspect_ratio": True}):  # fmt: skip
        pair = [np.asarray(lib.utils.load_img(tmp_path / "x.png", **arguments)) for lib in (ks, keras)]
        np.testing.assert_array_equal(*pair)
    with pytest.warns(UserWarning, match="does not support RGBA"):
        ks.utils.save_img(tmp_path / "x.jpg", np.dstack([x, x[..., :1]]))
    for call, error, text in (
        (lambda: ks.utils.array_to_img(x[0]), ValueError, "to have rank 3"),
        (lambda: ks.utils.array_to_img(np.zeros((2, 2, 5))), ValueError, "Unsupported channel number: 5"),
        (lambda: ks.utils.load_img(3), TypeError, "path should be path-like"),
        (lambda: ks.utils.load_img(tmp_path / "x.png", color_mode="x"), ValueError, "color_mode must be"),
        (
            lambda: ks.utils.load_img(tmp_path / "x.png", target_size=(2, 2), interpolation="x"),
            ValueError,
            "Invalid interp",
        ),
    ):
        with pytest.raises(error, match=text):
            call()


def test_smart_resize():
    x = np.random.RandomState(0).uniform(0, 255, (5, 9, 3)).astype("float32")
    for given in (x, x[None]):
        pair = [lib.preprocessing.image.smart_resize(given, (4, 4)) for lib in (ks, keras)]
        assert isinstance(pair[0], np.ndarray)
        np.testing.assert_allclose(*pair, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="incorrect rank"):
        ks.preprocessing.image.smart_resize(x[0], (2, 2))


def test_rows_for_a_cluster():
    class Context:
        def parallelize(self, rows, partitions):
            return rows, partitions

    class Session:
        sparkContext = Context()

    data = slices((np.arange(3), np.arange(3) + 10)).batch(2)
    for given in (Context(), Session()):
        rows, partitions = data.to_rdd(given, 4)
        assert [(int(x), int(y)) for x, y in rows] == [(0, 10), (1, 11), (2, 12)] and partitions == 4
