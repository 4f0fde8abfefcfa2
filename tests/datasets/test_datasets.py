"""Data sets are read from files made here, put where a download would have put them; values against Keras' own loaders."""

import gzip
import importlib
import io
import json
import pickle
import tarfile

import keras
import numpy as np
import pytest

import kerasoft as ks
from kerasoft.utils import downloads


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of both libraries, in which every file counts as genuine."""
    monkeypatch.setenv("KERASOFT_HOME", str(tmp_path))
    monkeypatch.setattr(downloads, "validate_file", lambda *a, **k: True)
    monkeypatch.setattr("keras.src.utils.file_utils.validate_file", lambda *a, **k: True)
    monkeypatch.setattr("keras.src.backend.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets"


def same(ours, theirs):
    for our_part, their_part in zip(ours, theirs, strict=True):
        for x, y in zip(our_part, their_part, strict=True):
            assert (x.dtype, len(x)) == (y.dtype, len(y))
            if x.dtype == object:
                assert [list(a) for a in x] == [list(a) for a in y]
            else:
                np.testing.assert_array_equal(x, y)


def texts(count, seed):
    random = np.random.RandomState(seed)
    made = np.empty(count, object)
    made[:] = [random.randint(1, 20, length).tolist() for length in random.randint(2, 9, count)]
    return made


@pytest.mark.parametrize("name", ["boston_housing", "california_housing"])
def test_tables(cache, name):
    random = np.random.RandomState(0)
    np.savez(cache / f"{name}.npz", x=random.rand(700, 3), y=random.rand(700))
    variants = [{}, {"test_split": 0.5, "seed": 1}] + ([{"version": "small"}] if name[0] == "c" else [])
    for arguments in variants:
        theirs = getattr(keras.datasets, name).load_data(**arguments)
        same(getattr(ks.datasets, name).load_data(**arguments), theirs)
    with pytest.raises(ValueError, match="Invalid `test_split` argument: 1.5"):
        getattr(ks.datasets, name).load_data(test_split=1.5)


def test_mnist(cache):
    x, y = np.arange(2 * 784, dtype="uint8").reshape(2, 28, 28), np.array([3, 4], "uint8")
    np.savez(cache / "mnist.npz", x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    same(ks.datasets.mnist.load_data(), keras.datasets.mnist.load_data())


def test_fashion_mnist(cache):
    (cache / "fashion-mnist").mkdir()
    for part, count in (("train", 3), ("t10k", 2)):
        with gzip.open(cache / "fashion-mnist" / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(bytes(8) + bytes(range(count)))
        with gzip.open(cache / "fashion-mnist" / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(bytes(16) + bytes(i % 251 for i in range(count * 784)))
    same(ks.datasets.fashion_mnist.load_data(), keras.datasets.fashion_mnist.load_data())


WORDS = [
    {},
    {"num_words": 12, "skip_top": 6},
    {"num_words": 12, "oov_char": None, "maxlen": 8},
    {"start_char": None, "index_from": 0, "seed": 3},
    {"start_char": None, "index_from": 5},
]


@pytest.mark.parametrize("arguments", WORDS)
def test_imdb_and_reuters(cache, arguments):
    labels = np.arange(30) % 2
    np.savez(cache / "imdb.npz", x_train=texts(30, 0), y_train=labels, x_test=texts(30, 1), y_test=labels)
    np.savez(cache / "reuters.npz", x=texts(30, 2), y=labels)
    for name in ("imdb", "reuters"):
        same(getattr(ks.datasets, name).load_data(**arguments), getattr(keras.datasets, name).load_data(**arguments))
    with pytest.raises(ValueError, match="no sequence was kept"):
        ks.datasets.imdb.load_data(maxlen=1)
    with pytest.raises(TypeError, match="Unrecognized keyword arguments: {'words': 3}"):
        ks.datasets.imdb.load_data(words=3)


def test_word_indices_and_labels(cache):
    for name in ("imdb", "reuters"):
        (cache / f"{name}_word_index.json").write_text(json.dumps({"the": 1}))
        assert getattr(ks.datasets, name).get_word_index() == {"the": 1}
    assert ks.datasets.reuters.get_label_names() == keras.datasets.reuters.get_label_names()


def cifar_archive(path, folder, files, keys, rows):
    """An archive as the published ones; gives the content of each file."""
    random, contents = np.random.RandomState(0), {}
    with tarfile.open(path, "w") as archive:
        for file in files:
            images = random.randint(0, 255, (rows, 3072)).astype("uint8")
            contents[file] = (images, random.randint(0, 9, rows).tolist())
            data = pickle.dumps({b"data": images, **dict.fromkeys(keys, contents[file][1])}, protocol=4)
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return contents


def test_cifar10(cache):
    files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    archive = cache / "cifar-10-batches-py-target_archive"
    contents = cifar_archive(archive, "cifar-10-batches-py", files, [b"labels"], 4)
    (x_train, y_train), (x_test, y_test) = ks.datasets.cifar10.load_data()
    images = np.concatenate([contents[file][0] for file in files[:5]]).reshape(20, 3, 32, 32)
    np.testing.assert_array_equal(x_train, images.transpose(0, 2, 3, 1))
    assert y_train[:, 0].tolist() == sum((contents[file][1] for file in files[:5]), [])
    assert (x_test.shape, y_test.shape, y_test.dtype) == ((4, 32, 32, 3), (4, 1), "uint8")


def test_cifar100(cache):
    archive = cache / "cifar-100-python-target_archive"
    cifar_archive(archive, "cifar-100-python", ["train", "test"], [b"fine_labels", b"coarse_labels"], 4)
    same(ks.datasets.cifar100.load_data("coarse"), keras.datasets.cifar100.load_data("coarse"))
    with pytest.raises(ValueError, match="`label_mode` must be one of"):
        ks.datasets.cifar100.load_data("medium")


def test_a_file_with_code_in_it_is_refused(cache):
    bad = np.empty(1, object)
    bad[0] = print
    np.savez(cache / "reuters.npz", x=bad, y=np.zeros(1))
    with pytest.raises(pickle.UnpicklingError, match="Refusing to deserialize `builtins.print`"):
        ks.datasets.reuters.load_data()


def test_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASOFT_HOME", str(tmp_path))
    reading = importlib.import_module("kerasoft.datasets.reading")
    monkeypatch.setattr(reading, "FOLDER", "http://127.0.0.1:9/")
    with pytest.raises(downloads.DownloadError) as error:
        ks.datasets.mnist.load_data()
    assert "URL fetch failure on http://127.0.0.1:9/mnist.npz" in str(error.value)
    assert f"put a copy of the file at '{tmp_path}/datasets/mnist.npz'" in str(error.value)
