"""Checkpoints come back as they were, or not at all."""

import dataclasses
import json
import os

import numpy as np
import pytest
from kerasoft.runtime.checkpoint import Checkpoint, Checkpoints, LocalFolder
from kerasoft.runtime.errors import CheckpointError

FIT = {"batch_size": 8, "rows": [3, 4]}


def make(step=0, **changes):
    rng = np.random.default_rng(step)
    vector = lambda n: rng.normal(size=n).astype("float32")
    values = dict(epoch=1, step=step, iteration=9, learning_rate=0.1, params=vector(5), state=vector(2))
    values |= dict(slots=(vector(5), vector(5)), sums=rng.normal(size=3), seed=7, fit=FIT, hooks={"a": [1]})
    return Checkpoint(**values | changes)


def same(a, b):
    for field in dataclasses.fields(Checkpoint):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))
        assert field.name != "sums" or b.sums.dtype == np.float64
    return True


def test_round_trip_keeps_the_last_two(tmp_path):
    checkpoints = Checkpoints(LocalFolder(tmp_path / "a"), FIT)
    assert checkpoints.latest() == (None, [])
    for step in range(4):
        checkpoints.commit(make(step))
    assert sorted(os.listdir(tmp_path / "a")) == ["checkpoint-00000003", "checkpoint-00000004"]
    found, damaged = checkpoints.latest()
    assert same(make(3), found) and damaged == []


def test_a_damaged_one_is_passed_over_and_named(tmp_path):
    checkpoints = Checkpoints(LocalFolder(tmp_path), FIT)
    for step in range(2):
        checkpoints.commit(make(step))
    path = tmp_path / "checkpoint-00000002" / "arrays.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found, damaged = checkpoints.latest()
    assert same(make(0), found)
    assert damaged == [
        f"{tmp_path}/checkpoint-00000002 is damaged and was passed over: the SHA-256 of arrays.npz is not the one in "
        "meta.json"
    ]
    os.remove(tmp_path / "checkpoint-00000001" / "meta.json")
    found, damaged = checkpoints.latest()
    assert found is None and damaged[1].endswith("meta.json is missing")


def test_an_unfinished_write_is_not_seen(tmp_path):
    class Dies(LocalFolder):
        def put(self, local, name):
            (self.path / f".{name}.1").mkdir(parents=True)
            raise OSError("disk full")

    with pytest.raises(CheckpointError, match=f"checkpoint-00000001 could not be written to {tmp_path} .* disk full"):
        Checkpoints(Dies(tmp_path), FIT).commit(make())
    assert Checkpoints(LocalFolder(tmp_path), FIT).latest() == (None, [])


def test_another_fit_is_refused_and_a_finished_one_is_over(tmp_path):
    Checkpoints(LocalFolder(tmp_path), FIT).commit(make())
    with pytest.raises(CheckpointError) as error:
        Checkpoints(LocalFolder(tmp_path), FIT | {"batch_size": 16}).latest()
    assert str(error.value) == (
        f"{tmp_path}/checkpoint-00000001 belongs to another fit: its batch_size is 8, this fit's is 16. Give this fit "
        "another checkpoint folder, or remove that one."
    )
    Checkpoints(LocalFolder(tmp_path), FIT).commit(make(finished=True))
    assert Checkpoints(LocalFolder(tmp_path), FIT).latest() == (None, [])


def test_objects_are_not_unpickled(tmp_path):
    checkpoints = Checkpoints(LocalFolder(tmp_path), FIT)
    checkpoints.commit(make(params=np.array([{}], dtype=object)))
    found, damaged = checkpoints.latest()
    assert found is None and "Object arrays cannot be loaded when allow_pickle=False" in damaged[0]


def test_meta_is_readable_json(tmp_path):
    Checkpoints(LocalFolder(tmp_path), FIT).commit(make(2))
    meta = json.loads((tmp_path / "checkpoint-00000001" / "meta.json").read_text())
    assert (meta["epoch"], meta["step"], meta["hooks"]) == (1, 2, {"a": [1]})
