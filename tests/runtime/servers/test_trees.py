"""Trees of arrays as messages and behind a server, without Spark."""

import threading

import numpy as np
import pytest
from kerasoft.runtime import ParameterContext
from kerasoft.runtime.errors import WireError
from kerasoft.runtime.servers.pytree import pack, unpack
from kerasoft.runtime.servers.trees import TreePort, TreeServer, TreeTask
from kerasoft.runtime.wire import new_secret

from examples import word2vec


def test_trees_come_back_as_they_were():
    tree = {"a": [np.arange(3), (np.float32(2), None)], "b": {"c": "text", "d": True, "e": 1.5}, "empty": []}
    described, arrays = pack(tree)
    back = unpack(described, arrays)
    np.testing.assert_array_equal(back["a"][0], tree["a"][0])
    assert back["a"][1] == (2, None) and isinstance(back["a"][1], tuple)
    assert back["b"] == tree["b"] and back["empty"] == []


@pytest.mark.parametrize("bad", [{"x": 1}, {"a": "none"}, {"v": [1]}, 3, {"l": 3}, {"d": [["k"]]}, {"a": 1, "l": []}])
def test_what_is_no_tree_is_refused(bad):
    with pytest.raises(WireError, match="a tree is described wrongly"):
        unpack(bad, {})


def test_a_model_of_objects_is_refused():
    with pytest.raises(TypeError, match=r"/layers/1 is a object of dtype object; trees hold arrays of numbers"):
        ParameterContext({"layers": [np.zeros(2), object()]})


@pytest.mark.alone  # how stale updates are depends on what else the machine does
def test_word_vectors_have_sane_neighbours():
    """The example's functions through real sockets, three tasks as threads; every batch counts once."""
    words = word2vec.vocabulary(word2vec.sentences())
    lines = list(word2vec.corpus(words))
    server, secret = TreeServer(word2vec.fresh(words), word2vec.descent), new_secret()
    port = TreePort(server, "127.0.0.1", secret)
    port.open(3)
    try:
        task = TreeTask(("127.0.0.1", port.port), secret, 0, word2vec.gradient, 50, 1)
        threads = [threading.Thread(target=task, args=(part, lines[part::3])) for part in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        task(0, lines[::3])  # a task that is run again finds all its batches done
    finally:
        port.close()
    assert server.counts["updates"] == sum(-(-len(lines[part::3]) // 50) for part in range(3))
    assert server.counts["most_staleness"] > 0 and server.counts["repeated"] == 0
    near = {word: set(word2vec.neighbours(server.model, words, word, 10)) for word in ("float", "error", "file")}
    wanted = {
        "float": {"integer", "integers", "int", "complex", "floating", "numbers", "conversion", "hex", "decimal"},
        "error": {"errors", "exception", "raises", "raised", "raise", "except", "traceback", "failure", "handler"},
        "file": {"reading", "write", "writing", "open", "stream", "filename", "descriptor", "binary", "files", "path"},
    }
    assert all(near[word] & wanted[word] for word in wanted), near
