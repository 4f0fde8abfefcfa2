"""Local programs as bytes, and the instructions' interpreter."""

import numpy as np
import pytest
from kerasoft.compiler.errors import ProgramError, ShapeError
from kerasoft.compiler.parallel import Drop, LocalProgram, Mesh, Send, partition, run
from kerasoft.compiler.program import StepProgram, UpdateArgs

import kerasoft as ks
from tests.compiler.parallel import together


@pytest.fixture(scope="module")
def programs():
    model = ks.Sequential([ks.Input((3,), name="in"), ks.layers.Dense(4, name="a"), ks.layers.Dense(2, name="b")])
    model.compile(ks.optimizers.SGD(momentum=0.9), "mse")
    x = np.zeros((4, 3), np.float32)
    source, _, _ = together.source_of(model, x, x[:, :2], 4)
    return partition(source, Mesh(pipeline=2), {"b": 1}).export(train_rows=(4,))


def test_bytes_come_back(programs):
    for i, program in enumerate(programs):
        again = LocalProgram.from_bytes(program.to_bytes())
        assert again.fingerprint == program.fingerprint
        assert (again.coordinate, again.coordinates) == (i, 2)
        assert again.train(4).phases == program.train(4).phases
        assert list(again.train(4).phases) == ["forward", "backward"]


def test_only_what_a_coordinate_reads_is_read(programs):
    assert programs[0].reads("train") == ("x/in",)
    assert programs[1].reads("train") == ("y/b",)


def test_elements_know_their_variable_of_the_whole_model(programs):
    assert programs[0].segments().tolist() == [0] * 12 + [1] * 4
    assert programs[1].segments().tolist() == [2] * 8 + [3] * 2


def test_the_update_is_the_whole_models(programs):
    param, gradient = np.ones(10, np.float32), np.full(10, 2, np.float32)
    args = UpdateArgs(param, gradient, (np.zeros(10, np.float32),), programs[1].segments(), 0.1, 0)
    new, momentum = programs[1].update(10).whole(args)
    np.testing.assert_allclose(new, 0.8, rtol=1e-6)
    np.testing.assert_allclose(momentum, -0.2, rtol=1e-6)


def test_what_is_no_local_program_is_refused(programs):
    with pytest.raises(ProgramError, match="no train call for 5 rows|no train call"):
        programs[0].train(5)
    with pytest.raises(ProgramError, match="no local program"):
        LocalProgram.from_bytes(programs[0].step.to_bytes())
    with pytest.raises(ProgramError, match="damaged"):
        StepProgram.from_bytes(programs[0].to_bytes())
    data = bytearray(programs[0].to_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(ProgramError, match="damaged"):
        LocalProgram.from_bytes(bytes(data))


def test_wrong_arguments_are_named(programs):
    phase = programs[0].train(4).phases["forward"]
    given = {"params": np.zeros(16, np.float32), "state": np.zeros(0, np.float32), "valid": np.ones(4, np.float32)}
    with pytest.raises(ShapeError, match="needs 'x/in', got nothing"):
        run(phase, dict(given), None)
    with pytest.raises(ShapeError, match=r"x/in needs float32\[4, 3\], got float32\[5, 3\]"):
        run(phase, {**given, "x/in": np.zeros((5, 3), np.float32)}, None)


def test_instructions_that_move_values():
    class Links:
        def send(self, to, arrays):
            self.sent = (to, [a.tolist() for a in arrays])

    links, environment = Links(), {"a": np.arange(3), "b": np.ones(2)}
    run((Send(1, ("a", "b")), Drop(("a",))), environment, links)
    assert links.sent == (1, [[0, 1, 2], [1.0, 1.0]])
    assert list(environment) == ["b"]
