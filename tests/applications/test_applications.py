"""The models of `kerasoft.applications` have Keras' layers, weights and numbers."""

import hashlib
import inspect
import json
import pathlib

import keras
import numpy as np
import pytest

import kerasoft as ks
from kerasoft.utils import downloads

EXPECTED = json.loads((pathlib.Path(__file__).parent / "keras_models.json").read_text())
# ResNet18: the 11,689,512 trainable ones usually given, 4,800 biases of convolutions, 9,600 moving statistics
OURS = {"InceptionV1": 6_998_552, "ResNet18": 11_703_912}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras writing files
NAMES = sorted(n for n in ks.applications.__all__ if n[0].isupper())
SMALLEST = {"InceptionV3": 75}
COMPARED = ("ResNet50", "InceptionV3", "MobileNetV3Small", "EfficientNetB0")
LARGE = ("InceptionV3", "EfficientNetB0")  # half a minute each: `make soak`


def test_all_of_keras_are_here():
    theirs = {n for n in dir(keras.applications) if n[0].isupper()}
    assert theirs | set(OURS) == set(NAMES) and set(EXPECTED) == theirs
    modules = {n for n in dir(keras.applications) if n[0].islower()}
    assert modules <= set(ks.applications.__all__)
    for module in modules:
        public = {n for n in dir(getattr(keras.applications, module)) if n[0] != "_"}
        assert public <= set(dir(getattr(ks.applications, module)))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_signatures(name):
    signatures = [inspect.signature(getattr(library.applications, name)) for library in (keras, ks)]
    shown = [[(p.name, p.default) for p in signature.parameters.values()] for signature in signatures]
    assert shown[0] == shown[1]


def digest(model):
    """As in `record_keras_models.py`."""
    layers = "\n".join(f"{type(layer).__name__} {layer.name}" for layer in model.layers)
    weights = "\n".join(f"{tuple(v.shape)} {v.dtype} {v.trainable}" for v in model.weights)
    return {
        "parameters": int(model.count_params()),
        "output_shape": list(model.output_shape),
        "layers": hashlib.sha256(layers.encode()).hexdigest()[:16],
        "weights": hashlib.sha256(weights.encode()).hexdigest()[:16],
    }


@pytest.mark.parametrize("name", NAMES)
def test_layers_and_weights(name):
    """Against what Keras 3.15 gave (`record_keras_models.py`). No weight is drawn for this."""
    ks.utils.clear_session(free_memory=False)
    found = digest(getattr(ks.applications, name)(weights=None))
    if name in OURS:
        assert (found["parameters"], found["output_shape"]) == (OURS[name], [None, 1000])
    else:
        assert found == EXPECTED[name]


def pair(name, **arguments):
    made = []
    for library in (keras, ks):
        library.utils.clear_session(free_memory=False)
        made.append(getattr(library.applications, name)(weights=None, **arguments))
    return made


def scattered(random, variable):
    """Weights that keep the numbers of a deep model in a sensible range."""
    shape = tuple(variable.shape)
    if variable.path.endswith("variance"):
        return random.uniform(0.5, 1.5, shape)
    if len(shape) < 2:
        return (1.0 if variable.path.endswith("gamma") else 0.0) + random.uniform(-0.1, 0.1, shape)
    fan = np.prod(shape[:2]) if "depthwise" in variable.path or "dw" in variable.path else np.prod(shape[:-1])
    return random.standard_normal(shape) * np.sqrt(1.5 / fan)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.soak] if n in LARGE else []) for n in COMPARED])
def test_numbers(name, tmp_path):
    """The weights of Keras' model, also by way of a file, give Keras' predictions."""
    size = SMALLEST.get(name, 32)
    theirs, ours = pair(name, include_top=False, pooling="avg", input_shape=(size, size, 3))
    assert [v.path for v in theirs.weights] == [v.path for v in ours.weights]
    random = np.random.RandomState(0)
    weights = [scattered(random, v) for v in theirs.weights]
    theirs.set_weights(weights)
    x = random.uniform(0, 255 if "Eff" in name or "V3" in name[-7:] else 1, (2, size, size, 3)).astype("float32")
    expected = theirs.predict(x, verbose=0)
    theirs.save_weights(tmp_path / "their.weights.h5")
    ours.load_weights(tmp_path / "their.weights.h5")
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(ours.predict(x, verbose=0), expected, rtol=1e-5, atol=tolerance)


def test_a_keras_file_of_a_model_with_its_own_layer(tmp_path):
    """CustomScaleLayer and LayerScale are found in files that Keras wrote."""
    layer = keras.src.applications.inception_resnet_v2.CustomScaleLayer(0.5)
    a = keras.Input((3,))
    keras.Model(a, layer([a, keras.layers.Dense(3)(a)])).save(tmp_path / "theirs.keras")
    model = ks.models.load_model(tmp_path / "theirs.keras")
    theirs = keras.models.load_model(tmp_path / "theirs.keras", custom_objects={"CustomScaleLayer": type(layer)})
    x = np.ones((2, 3), "float32")
    np.testing.assert_allclose(model.predict(x, verbose=0), theirs.predict(x, verbose=0), rtol=1e-6)
    ours = ks.applications.inception_resnet_v2.CustomScaleLayer(0.5)
    a = ks.Input((3,))
    ks.Model(a, ours([a, a])).save(tmp_path / "ours.keras")
    back = ks.models.load_model(tmp_path / "ours.keras")
    assert back.layers[-1].scale == 0.5


ERRORS = [
    ("VGG16", {"weights": "nowhere.h5"}, "The `weights` argument should be either `None`"),
    ("VGG16", {"classes": 10}, "`classes` should be 1000"),
    ("VGG16", {"weights": None, "input_shape": (20, 20, 3)}, "Input size must be at least 32x32"),
    ("VGG16", {"weights": None, "input_shape": (None, None, 3)}, "you should specify a static `input_shape`"),
    ("VGG16", {"weights": None, "input_shape": (32, 32), "include_top": False}, "must be a tuple of three integers"),
    ("VGG16", {"input_shape": (64, 64, 3)}, "`input_shape` should be (224, 224, 3)"),
    ("VGG16", {"input_shape": (64, 64, 1), "include_top": False}, "The input must have 3 channels"),
    ("ResNet50", {"classifier_activation": "relu"}, "Only `None` and `softmax` activations are allowed"),
    ("MobileNet", {"alpha": 0.3}, "alpha can be one of"),
    ("MobileNetV2", {"alpha": 0.3}, "alpha must be one of"),
    ("MobileNetV3Small", {"weights": None, "input_shape": (16, 16, 3)}, "Input size must be at least 32x32"),
]


@pytest.mark.parametrize("name, arguments, text", ERRORS)
def test_errors(name, arguments, text):
    """The same words as Keras', both of them."""
    for library in (keras, ks):
        with pytest.raises(ValueError) as error:
            getattr(library.applications, name)(**arguments)
        assert text in " ".join(str(error.value).split())


def test_unusual_channels():
    with pytest.warns(UserWarning, match="usually expects 1 or 3 input channels"):
        ks.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 5))


def test_published_weights_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASOFT_HOME", str(tmp_path))

    def refused(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(downloads.urllib.request, "urlopen", refused)
    with pytest.raises(downloads.DownloadError) as error:
        ks.applications.MobileNetV3Small(weights="imagenet", input_shape=(224, 224, 3))
    text, name = str(error.value), "weights_mobilenet_v3_small_224_1.0_float.h5"
    assert f"keras-applications/mobilenet_v3/{name}: no network here" in text
    assert f"put a copy of the file at '{tmp_path}/models/{name}'" in text and "`weights=None`" in text
    with pytest.raises(downloads.DownloadError, match="imagenet_class_index.json"):
        ks.applications.vgg16.decode_predictions(np.zeros((1, 1000)))
    with pytest.raises(ValueError, match="There are no published weights for inception_v1"):
        ks.applications.InceptionV1(weights="imagenet")


def test_decode_predictions(tmp_path, monkeypatch):
    monkeypatch.setattr(
        ks.applications.imagenet_utils, "_class_names", lambda: {str(i): [f"n{i}", f"class {i}"] for i in range(1000)}
    )
    scores = np.zeros((1, 1000), "float32")
    scores[0, [3, 7]] = 0.25, 0.5
    best = ks.applications.resnet50.decode_predictions(scores, top=2)
    assert best == [[("n7", "class 7", 0.5), ("n3", "class 3", 0.25)]]
    with pytest.raises(ValueError, match="expects a batch of predictions"):
        ks.applications.resnet50.decode_predictions(np.zeros((1, 10)))


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [3, 4])
def test_preprocess_input(mode, data_format, rank):
    x = np.random.RandomState(0).uniform(0, 255, (3, 3, 3) if rank == 3 else (2, 3, 3, 3)).astype("float32")
    expected = keras.applications.imagenet_utils.preprocess_input(x.copy(), data_format, mode)
    import jax.numpy as jnp

    for given in (x.copy(), jnp.asarray(x), x.astype("int32")):
        found = ks.applications.imagenet_utils.preprocess_input(given, data_format, mode)
        close = 1 if given.dtype == "int32" else 2e-5
        np.testing.assert_allclose(np.asarray(found), expected, atol=close * (1 if mode == "caffe" else 0.05))
    symbolic = ks.applications.imagenet_utils.preprocess_input(ks.Input((3, 3, 3)), mode=mode)
    assert symbolic.shape == (None, 3, 3, 3)


def test_families_scale_pixels_in_their_own_way():
    x = np.full((1, 2, 2, 3), 127.5, "float32")
    for module in ("vgg16", "resnet50", "resnet_v2", "inception_v3", "densenet", "efficientnet", "convnext", "nasnet"):
        ours = getattr(ks.applications, module).preprocess_input(x.copy())
        np.testing.assert_allclose(ours, getattr(keras.applications, module).preprocess_input(x.copy()), rtol=1e-6)


def test_input_tensor_and_pooling():
    image = ks.Input((32, 32, 3))
    model = ks.applications.MobileNet(
        weights=None, include_top=False, input_tensor=image * 2.0, pooling="max", alpha=0.25
    )
    assert model.inputs[0] is image and model.output_shape == (None, 256)
    with pytest.raises(ValueError, match="`input_tensor` must be a KerasTensor"):
        ks.applications.VGG16(weights=None, input_tensor=np.zeros((1, 224, 224, 3)))


def test_weights_from_a_path(tmp_path):
    arguments = {"include_top": False, "alpha": 0.25, "input_shape": (32, 32, 3)}
    model = ks.applications.MobileNet(weights=None, **arguments)
    model.save_weights(tmp_path / "w.weights.h5")
    again = ks.applications.MobileNet(weights=tmp_path / "w.weights.h5", **arguments)
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


def test_weights_as_keras_published_them(tmp_path):
    """The `.h5` files behind `weights="imagenet"` are of Keras 2's form."""
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    arguments = {"include_top": False, "input_shape": (32, 32, 3), "alpha": 0.35}
    theirs = pair("MobileNetV2", **arguments)[0]
    with h5py.File(tmp_path / "published.h5", "w") as file:
        save_weights_to_hdf5_group(file, theirs)
    ours = ks.applications.MobileNetV2(weights=tmp_path / "published.h5", **arguments)
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_own_layers():
    from kerasoft.applications import convnext, inception_v1

    x = np.random.RandomState(0).standard_normal((2, 3, 7)).astype("float32")
    layer = inception_v1.LocalResponseNormalization(size=3, alpha=0.5, beta=0.75)
    padded = np.pad(x**2, ((0, 0), (0, 0), (1, 1)))
    sums = padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]
    np.testing.assert_allclose(layer(x), x / (1 + 0.5 / 3 * sums) ** 0.75, rtol=1e-5)
    again = ks.saving.deserialize_keras_object(ks.saving.serialize_keras_object(layer))
    assert (again.size, again.alpha, again.beta) == (3, 0.5, 0.75)
    drop = convnext.StochasticDepth(0.5)
    np.testing.assert_array_equal(drop(x), x)
    rows = np.asarray(drop(np.ones((64, 2, 2), "float32"), training=True)).reshape(64, 4)
    assert set(rows.reshape(-1).tolist()) == {0.0, 2.0} and (rows == rows[:, :1]).all()
    assert convnext.StochasticDepth.from_config(drop.get_config()).drop_path_rate == 0.5


def test_channels_first():
    """The global layout reaches every layer: the same numbers as channels last."""
    arguments = {"weights": None, "include_top": False, "alpha": 0.25, "pooling": "avg"}
    x = np.random.RandomState(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    last = ks.applications.MobileNet(input_shape=(32, 32, 3), **arguments)
    ks.config.set_image_data_format("channels_first")
    try:
        first = ks.applications.MobileNet(input_shape=(3, 32, 32), **arguments)
    finally:
        ks.config.set_image_data_format("channels_last")
    first.set_weights(last.get_weights())
    found = first.predict(x.transpose(0, 3, 1, 2), verbose=0)
    np.testing.assert_allclose(found, last.predict(x, verbose=0), rtol=1e-4, atol=1e-6)
