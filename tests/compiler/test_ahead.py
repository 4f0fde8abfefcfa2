"""Reading ahead: what the last such training ran is read on a thread; a wrong guess costs nothing but the reading."""

import threading
import warnings

import numpy as np
import pytest
from kerasoft.compiler import compile_cache, stored
from kerasoft.compiler.ahead import ReadAhead

from tests.compiler.regression import arrays, regression


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Keeps everything in a folder of the test's own."""
    monkeypatch.setattr(stored, "use_default_cache", lambda: str(tmp_path))
    monkeypatch.setattr(stored, "WORTH_S", 0.0)
    yield tmp_path
    ReadAhead("nothing").finish()


@pytest.fixture
def opened_by(monkeypatch):
    """Names of the threads that opened executables."""
    found, original = [], stored.opened

    def opened(file):
        found.append(threading.current_thread().name)
        return original(file)

    monkeypatch.setattr(stored, "opened", opened)
    return found


def predicted(rows=4):
    params, state, batch = arrays(rows)
    return np.asarray(regression(late=True).local().predict(params, state, batch)[0]).tobytes()


def trained(name="net", rows=4):
    ahead = ReadAhead(name)
    found = predicted(rows)
    ahead.finish()
    return found


def test_what_was_used_is_read_on_a_thread_the_next_time(folder, opened_by):
    first = trained()
    assert len(list(folder.glob("ahead-*"))) == 1 and opened_by == ["MainThread"], "there was none yet"
    opened_by.clear()
    before, loaded = compile_cache.compilations(), compile_cache.cache_hits()
    assert trained() == first and opened_by == ["kerasoft-ahead"]
    assert compile_cache.compilations() == before and compile_cache.cache_hits() == loaded + 1
    assert stored.coming == {} and stored.used is None


def test_a_wrong_guess_is_forgotten_and_corrected(folder, opened_by):
    four, seven = trained(rows=4), trained("other", rows=7)
    assert trained("net", rows=7) == seven and stored.coming == {}
    opened_by.clear()
    assert trained("net", rows=7) == seven and opened_by == ["kerasoft-ahead"]
    assert trained("net", rows=4) == four


def test_another_name_is_another_guess(folder, opened_by):
    trained()
    opened_by.clear()
    trained("another")
    assert opened_by == ["MainThread"]


def test_nothing_is_written_when_nothing_was_read(folder):
    ReadAhead("net").finish()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: data.replace(b'"', b"'")])
def test_a_damaged_guess_is_no_guess(folder, opened_by, damage):
    first = trained()
    (file,) = folder.glob("ahead-*")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    opened_by.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trained() == first and opened_by == ["MainThread"]
    assert file.read_bytes() == whole


def test_names_of_other_files_are_not_read(folder, opened_by):
    trained()
    (file,) = folder.glob("ahead-*")
    stored.write_whole(file, b"kerasoft ahead 1\n", b'["../../secret"]')
    opened_by.clear()
    trained()
    assert opened_by == ["MainThread"]


def test_a_damaged_executable_is_said_where_it_is_wanted(folder):
    first = trained()
    (step,) = folder.glob("step-*")
    step.write_bytes(step.read_bytes()[:-5])
    with pytest.warns(UserWarning, match=r"ignoring the compiled step in .*damaged"):
        assert trained() == first
    assert trained() == first


def test_an_executable_that_is_gone_is_compiled(folder):
    first = trained()
    next(folder.glob("step-*")).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trained() == first
