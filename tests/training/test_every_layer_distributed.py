"""Every layer on two executor processes: the bits of one executor, and the numbers of a local fit.

The layers of the contract table train side by side, many in one model: each has an input, a path to an output and a loss
of its own, so that a layer that differs shows by its own weights and losses.
"""

import inspect

import numpy as np
import pytest
from kerasoft.runtime import AllReduce

import kerasoft as ks
from kerasoft import layers, tree
from tests.layers.test_layer_contract import OTHER_TABLES, ROWS
from tests.layers.test_layer_contract import row as a_row

pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("ignore:.*destroy the mask:UserWarning")]
L = ks.layers
ROWS_OF_DATA, TOGETHER = 12, 20
# What looks at the whole batch: with two shards the numbers are not those of one array.
WHOLE_BATCH = {
    "BatchNormalization",
    "SpectralNormalization",
    "CutMix",
    "MixUp",
    "Equalization",
    "AugMix",
    "RandAugment",
}
WHOLE_BATCH |= {"MelSpectrogram"}
IMAGE = (8, 8, 3)
ARGUMENTS = {
    "CenterCrop": (4, 4), "Resizing": (5, 5), "RandomCrop": (4, 4), "RandomBrightness": (0.2,), "RandomContrast": (0.2,),
    "RandomRotation": (0.1,), "RandomZoom": (0.2,), "RandomTranslation": (0.1, 0.1), "RandomShear": (0.1,),
    "RandomHue": (0.2,), "RandomSaturation": (0.3,), "RandomSharpness": (0.3,), "RandomColorDegeneration": (0.3,),
    "RandomPosterization": (4,),
}  # fmt: skip
KEYWORDS = {"RandomColorJitter": {"brightness_factor": 0.2}, "RandomErasing": {"scale": (0.1, 0.2)}}


def image_layer(name):
    def make(L):
        options = dict(KEYWORDS.get(name, {}))
        if "value_range" in inspect.signature(getattr(L, name)).parameters:
            options["value_range"] = (0, 1)
        return getattr(L, name)(*ARGUMENTS.get(name, ()), **options)

    return a_row(name, make, IMAGE)


OTHERS = [
    *(
        image_layer(n)
        for n in sorted(OTHER_TABLES["image/test_image_layers"] - {"ImageLayer", "Pipeline", "MaxNumBoundingBoxes"})
    ),
    a_row("Pipeline", lambda L: L.Pipeline([L.Rescaling(2.0), L.RandomFlip()]), IMAGE),
    a_row("STFTSpectrogram", lambda L: L.STFTSpectrogram(frame_length=16, frame_step=8), (64, 1)),
    a_row("MelSpectrogram", lambda L: L.MelSpectrogram(fft_length=32, sequence_stride=16, num_mel_bins=4), (64,)),
    a_row("Normalization", lambda L: L.Normalization(mean=1.0, variance=2.0), (4,)),
    a_row("Discretization", lambda L: L.Discretization([-0.5, 0.5], output_mode="one_hot"), (1,)),
    a_row("CategoryEncoding", lambda L: L.CategoryEncoding(5), (3,), ints=5),
    a_row("Hashing", lambda L: L.Hashing(4, output_mode="one_hot"), (1,), ints=9),
    a_row("IntegerLookup", lambda L: L.IntegerLookup(vocabulary=[1, 3, 4], output_mode="multi_hot"), (3,), ints=6),
]


def one_row_a_layer():
    found = {}
    for each in [*ROWS, *OTHERS]:
        found.setdefault(each.name, each)
    return list(found.values())


def groups():
    table = one_row_a_layer()
    apart = [r for r in table if r.name in WHOLE_BATCH]
    rest = [r for r in table if r.name not in WHOLE_BATCH]
    return [apart, *(rest[i : i + TOGETHER] for i in range(0, len(rest), TOGETHER))]


GROUPS = groups()
LATE = GROUPS[-2:]  # augmentations, which take longest to compile: `make soak`


def build(rows):
    """One model with a branch a row: input(s) → layer → flat → dense → loss, and the names of its weights by row."""
    ks.utils.clear_session(free_memory=False)
    ks.utils.set_random_seed(3)
    inputs, outputs = {}, {}
    for i, row in enumerate(rows):
        kind = "int32" if row.ints else "float32"
        tensors = [ks.Input(shape, dtype=kind, name=f"x{i}_{k}") for k, shape in enumerate(row.shapes)]
        inputs |= {t.name: t for t in tensors}
        made = row.make(layers)(*([tensors] if row.several else tensors), **row.call)
        flat = [L.Flatten()(t) for t in tree.flatten(made)]
        outputs[f"{row.name}_{i}"] = L.Dense(1, name=f"{row.name}_{i}")(
            flat[0] if len(flat) == 1 else L.Concatenate()(flat)
        )
    model = ks.Model(inputs, outputs)
    model.compile(ks.optimizers.SGD(0.05), {name: "mse" for name in outputs})
    return model


def sample(rng, row, size):
    values = rng.random(size) if row in OTHERS else rng.normal(size=size)
    return values.astype("float32")


def pick(part, i):
    return {name: array[i] for name, array in part.items()}


def data(rows):
    rng = np.random.default_rng(0)
    x = {}
    for i, row in enumerate(rows):
        for k, shape in enumerate(row.shapes):
            size = (ROWS_OF_DATA, *shape)
            x[f"x{i}_{k}"] = rng.integers(0, row.ints, size).astype("int32") if row.ints else sample(rng, row, size)
    y = {f"{row.name}_{i}": rng.normal(size=(ROWS_OF_DATA, 1)).astype("float32") for i, row in enumerate(rows)}
    return x, y


@pytest.mark.parametrize(
    "rows",
    [pytest.param(g, marks=[pytest.mark.soak] if g in LATE else [], id=f"{g[0].name}-to-{g[-1].name}") for g in GROUPS],
)
def test_two_executors_give_the_bits_of_one_and_the_numbers_of_arrays(context, rows):
    x, y = data(rows)
    rdd = context.parallelize([(pick(x, i), pick(y, i)) for i in range(ROWS_OF_DATA)], 2)
    here, one, two = build(rows), build(rows), build(rows)
    coupled = any(row.name in WHOLE_BATCH for row in rows)
    local = here.fit(x, y, batch_size=ROWS_OF_DATA, epochs=2, verbose=0, seed=5, shuffle=False)
    options = dict(batch_size=ROWS_OF_DATA, epochs=2, verbose=0, seed=5, shuffle=False)
    one.fit(rdd, strategy=AllReduce(1, deterministic=True), **options)
    far = two.fit(rdd, strategy=AllReduce(2, deterministic=True), **options)
    differing = {a.path for a, b in zip(one.weights, two.weights) if a.numpy().tobytes() != b.numpy().tobytes()}
    assert not differing, "other bits on two executors than on one"
    if coupled:  # statistics are of each shard, so the local fit on one shard has others
        return
    for a, b in zip(here.weights, two.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-5, err_msg=a.path)
    for name, values in local.history.items():
        np.testing.assert_allclose(values, far.history[name], rtol=1e-4, atol=1e-5, err_msg=name)


WORDS = ["red fox", "blue", "green tea", "fox blue"]


def text_model():
    """Layers of strings, which run on the executors' hosts before the compiled step."""
    ks.utils.clear_session(free_memory=False)
    ks.utils.set_random_seed(3)
    word = ks.Input((1,), dtype="string", name="word")
    number = ks.Input((1,), dtype="int32", name="number")
    columns = [
        L.StringLookup(vocabulary=WORDS[:3], output_mode="one_hot")(word),
        L.TextVectorization(vocabulary=["fox", "blue", "tea"], output_mode="multi_hot")(word),
        L.HashedCrossing(5, output_mode="one_hot")((word, number)),
    ]
    columns = [L.Flatten()(ks.ops.cast(c, "float32")) for c in columns]
    model = ks.Model({"word": word, "number": number}, L.Dense(1)(L.Concatenate()(columns)))
    model.compile(ks.optimizers.SGD(0.05), "mse")
    return model


def test_layers_of_strings_too(context):
    word = np.array([[WORDS[i % 4]] for i in range(ROWS_OF_DATA)])
    number = (np.arange(ROWS_OF_DATA, dtype="int32") % 3)[:, None]
    y = np.linspace(-1, 1, ROWS_OF_DATA, dtype="float32")[:, None]
    rows = [({"word": [str(word[i, 0])], "number": number[i]}, y[i]) for i in range(ROWS_OF_DATA)]
    rdd = context.parallelize(rows, 2)
    options = dict(batch_size=ROWS_OF_DATA, epochs=2, verbose=0, seed=5, shuffle=False)
    here, one, two = text_model(), text_model(), text_model()
    here.fit({"word": word, "number": number}, y, **options)
    one.fit(rdd, strategy=AllReduce(1, deterministic=True), **options)
    two.fit(rdd, strategy=AllReduce(2, deterministic=True), **options)
    for a, b, c in zip(here.get_weights(), one.get_weights(), two.get_weights(), strict=True):
        assert b.tobytes() == c.tobytes()
        np.testing.assert_allclose(a, c, rtol=1e-5, atol=1e-5)


def test_every_layer_of_the_table_is_in_a_group():
    tested = {r.name for group in GROUPS for r in group}
    tables = {r.name for r in ROWS} | set().union(*OTHER_TABLES.values())
    # Boxes are no arrays of numbers to train on; strings and sparse rows have tests of their own.
    assert tables - tested == {
        "ImageLayer",
        "MaxNumBoundingBoxes",
        "HashedCrossing",
        "SparseDense",
        "StringLookup",
        "TextVectorization",
    }
