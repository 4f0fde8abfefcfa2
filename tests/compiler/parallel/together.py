"""All coordinates of a plan in threads of one process, with links in memory; and models to cut."""

import queue
import threading

import numpy as np
from kerasoft.compiler.layout import StepArgs
from kerasoft.compiler.parallel import LocalProgram, run

import kerasoft as ks
from kerasoft.training.local_fit import _Source

TIMEOUT_S = 60


class Hub:
    """What the links of one replica share. Counts messages, sums and their elements."""

    def __init__(self, count, replicas=1):
        self.count, self.replicas = count, replicas
        self.queues = {(a, b): queue.Queue() for a in range(count) for b in range(count)}
        self.barrier = threading.Barrier(count)
        self.slots = [None] * count
        self.log = []


class MemoryLinks:
    def __init__(self, hub, index):
        self.hub, self.index = hub, index

    def _meet(self, value):
        self.hub.slots[self.index] = np.array(value)
        self.hub.barrier.wait(TIMEOUT_S)
        everybody = list(self.hub.slots)
        self.hub.barrier.wait(TIMEOUT_S)
        return everybody

    def sum(self, axis, vector):
        if axis == "data" and self.hub.replicas == 1:
            return vector
        self.hub.log.append(("sum", self.index, vector.size))
        total = np.zeros_like(vector)
        for part in self._meet(vector):
            total = total + part
        return total

    def gather(self, axis, array):
        self.hub.log.append(("gather", self.index, array.size))
        return np.stack(self._meet(array))

    def scatter(self, axis, vector, name):
        self.hub.log.append(("scatter", self.index, vector.size))
        return sum(self._meet(vector)).reshape(self.hub.count, -1)[self.index]

    def send(self, to, arrays):
        self.hub.log.append(("send", self.index, sum(a.size for a in arrays)))
        self.hub.queues[self.index, to].put([np.array(a) for a in arrays])

    def receive(self, source, types):
        while True:
            try:
                arrays = self.hub.queues[source, self.index].get(timeout=1)
                break
            except queue.Empty:
                assert not self.hub.barrier.broken, "another coordinate failed"
        assert [(a.shape, a.dtype.name) for a in arrays] == [(s, d) for s, d in types]
        return arrays


def call(plan, programs, kind, rows, params, microbatches):
    """One call of all coordinates for each of `microbatches` (arguments by name): their summed results, and the hub.

    `microbatches` may be a function that gives those of a coordinate. Every coordinate gets only the arrays that its program says that it reads.
    """
    hub = Hub(plan.coordinates, plan.mesh.slices)
    results, errors = [None] * plan.coordinates, []

    def work(i):
        try:
            program = LocalProgram.from_bytes(programs[i].to_bytes())
            local = getattr(program, kind)(rows)
            links = MemoryLinks(hub, i)
            names = {spec.name for spec in program.inputs} - set(program.reads(kind))
            chosen = microbatches(i) if callable(microbatches) else microbatches
            own = [{k: v for k, v in given.items() if k not in names} for given in chosen]
            environments = [{**given, "params": plan.localise(i, params)} for given in own]
            for name, phase in local.phases.items():
                for environment in environments:
                    run(phase, environment, links)
                if name == "before":
                    for total, shape in local.totals:
                        value = sum(np.asarray(e[total]) for e in environments).ravel()
                        value = links.sum("data", value).reshape(shape)
                        for environment in environments:
                            environment[total] = value
            found = [local.result(environment) for environment in environments]
            results[i] = found if kind == "predict" else sum(np.asarray(v) for v in found)
        except BaseException as error:
            errors.append(error)
            hub.barrier.abort()

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(plan.coordinates)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results, hub


def source_of(model, x, y, rows):
    """The `StepSource` of a compiled model with all four graphs, and its vectors at the start."""
    given = _Source(model, x, y, None, rows, None, None, "fit")
    program = model._program(given.signature, "train", "test", "predict")
    source = program.source
    values = {name: np.asarray(v.value) for name, v in program.traced.variables.items()}
    layout = source.layout
    params = layout.pack("params", {e.name: values[e.name] for e in layout.params})
    state = layout.pack("states", {e.name: values[e.name] for e in layout.states})
    return source, params, state


def batch_of(source, x, y, state, rows, total, start=0):
    """The arguments of a call for rows [start, start + rows) of a batch of `total`."""
    given = {}
    xs = x if isinstance(x, (list, tuple)) else [x]
    ys = y if isinstance(y, (list, tuple)) else [y]
    for spec, array in zip(source.inputs, [*xs, *ys], strict=True):
        given[spec.name] = np.ascontiguousarray(array[start : start + rows]).astype(spec.dtype)
    control = {
        "state": state,
        "valid": np.ones(rows, np.float32),
        "row_id": np.arange(start, start + rows, dtype=np.uint32),
        "key": np.array([3, 5], np.uint32),
        "rows": np.float32(total),
        "share": np.float32(rows / total),
        "iteration": np.int32(2),
    }
    return {**given, **control}


def whole(source, kind, rows, params, given):
    """The same call of the whole model."""
    program = source.export(**{f"{kind}_rows": (rows,)})
    names = {spec.name for spec in source.inputs}
    control = {k: v for k, v in given.items() if k not in names}
    batch = {k: v for k, v in given.items() if k in names}
    return getattr(program, kind)(rows).whole(StepArgs(params=params, batch=batch, **control))


def joined(plan, vectors):
    """float32[V] of the whole model from those of pipeline stages: gradients by parts, states and sums added."""
    gradients = plan.globalise([v[: layout.P] for v, layout in zip(vectors, plan.layouts)])
    rest = sum(v[layout.P :] for v, layout in zip(vectors, plan.layouts))
    return np.concatenate([gradients, rest])


def close(found, expected, tolerance=1e-5):
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


# --- models -----------------------------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(7)


def mlp(width=32, depth=3, normalised=True):
    layers = [ks.Input((12,))]
    for i in range(depth):
        layers += [ks.layers.Dense(width, activation="relu", name=f"hidden{i}")]
        layers += [ks.layers.BatchNormalization(name=f"norm{i}")] if normalised else []
        layers += [ks.layers.Dropout(0.3, name=f"drop{i}")]
    model = ks.Sequential([*layers, ks.layers.Dense(5, name="head", kernel_regularizer="l2")])
    model.compile("adam", ks.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model, RANDOM.normal(size=(16, 12)).astype("float32"), RANDOM.integers(0, 5, 16).astype("int32")


def transformer(blocks=2, width=16, heads=4, tied=False, vocabulary=24, steps=6):
    layers = ks.layers
    ids = ks.Input((steps,), dtype="int32")
    table = (
        layers.Embedding(vocabulary, width, name="table")
        if not tied
        else layers.ReversibleEmbedding(vocabulary, width, name="table")
    )
    x = table(ids)
    for i in range(blocks):
        h = layers.LayerNormalization(name=f"norm{i}a")(x)
        x = layers.Add(name=f"add{i}a")(
            [x, layers.MultiHeadAttention(heads, width // heads, name=f"attention{i}")(h, h)]
        )
        h = layers.LayerNormalization(name=f"norm{i}b")(x)
        h = layers.Dense(4 * width, activation="gelu", name=f"up{i}")(h)
        h = layers.Dropout(0.1, name=f"drop{i}")(layers.Dense(width, name=f"down{i}")(h))
        x = layers.Add(name=f"add{i}b")([x, h])
    if tied:
        out = table(x, reverse=True)
        y = RANDOM.integers(0, vocabulary, (16, steps)).astype("int32")
    else:
        out = layers.Dense(3, name="head")(layers.GlobalAveragePooling1D(name="pool")(x))
        y = RANDOM.integers(0, 3, 16).astype("int32")
    model = ks.Model(ids, out)
    model.compile("adam", ks.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model, RANDOM.integers(0, vocabulary, (16, steps)).astype("int32"), y


def neumf(users=30, items=21, width=8):
    layers = ks.layers
    user, item = ks.Input((1,), dtype="int32", name="user"), ks.Input((1,), dtype="int32", name="item")
    flat = layers.Flatten()
    embedded = {
        name: [
            flat(layers.Embedding(users, width, name=f"{name}_user")(user)),
            flat(layers.Embedding(items, width, name=f"{name}_item")(item)),
        ]
        for name in ("gmf", "mlp")
    }
    x = layers.Concatenate(name="both")(embedded["mlp"])
    for i, units in enumerate((32, 16)):
        x = layers.Dense(units, activation="relu", name=f"deep{i}")(x)
    x = layers.Concatenate(name="joined")([layers.Multiply(name="product")(embedded["gmf"]), x])
    model = ks.Model([user, item], layers.Dense(1, activation="sigmoid", name="head")(x))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    xs = [RANDOM.integers(0, n, (16, 1)).astype("int32") for n in (users, items)]
    return model, xs, RANDOM.integers(0, 2, (16, 1)).astype("float32")


def convolutional(channels=32):
    layers = ks.layers
    x = inputs = ks.Input((8, 8, 3))
    for i, strides in enumerate((1, 2, 1)):
        x = layers.Conv2D(channels, 3, strides, padding="same", use_bias=i != 1, name=f"conv{i}")(x)
        x = layers.BatchNormalization(name=f"norm{i}")(x) if i == 1 else x
        x = layers.Activation("relu", name=f"relu{i}")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Dense(64, activation="relu", name="hidden")(layers.Flatten(name="flat")(x))
    model = ks.Model(inputs, layers.Dense(4, name="head")(x))
    model.compile("sgd", ks.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model, RANDOM.normal(size=(16, 8, 8, 3)).astype("float32"), RANDOM.integers(0, 4, 16).astype("int32")


def synchronised(width=64):
    """Batch normalisation by the statistics of the whole batch."""
    layers = ks.layers
    model = ks.Sequential(
        [
            ks.Input((12,)),
            layers.Dense(width, activation="tanh", name="up"),
            layers.BatchNormalization(synchronized=True, name="norm"),
            layers.Dense(24, activation="relu", name="down"),
            layers.Dense(5, name="head"),
        ]
    )
    model.compile("sgd", ks.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model, RANDOM.normal(size=(16, 12)).astype("float32"), RANDOM.integers(0, 5, 16).astype("int32")


def masked(vocabulary=64, width=32):
    """Zeros are masked, so that the loss is divided by a count of steps over all rows of the batch."""
    layers = ks.layers
    ids = ks.Input((6,), dtype="int32")
    x = layers.Embedding(vocabulary, width, mask_zero=True, name="table")(ids)
    x = layers.Dense(64, activation="tanh", name="up")(x)
    model = ks.Model(ids, layers.Dense(40, name="head")(x))
    model.compile("adam", ks.losses.SparseCategoricalCrossentropy(from_logits=True))
    y = RANDOM.integers(0, 40, (16, 6)).astype("int32")
    return model, RANDOM.integers(0, 3, (16, 6)).astype("int32") * 7, y
