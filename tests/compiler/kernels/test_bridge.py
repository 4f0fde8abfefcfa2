"""Which native library is taken, and which is not."""

import pytest
from kerasoft.compiler.kernels import bridge, sources


def test_a_library_of_other_sources_is_not_used(monkeypatch, tmp_path):
    if not bridge.loaded("native"):
        pytest.skip(bridge.missing("native"))
    monkeypatch.setattr(bridge, "fingerprint", lambda: "other")
    assert "was built from other sources; run: python setup.py" in bridge._reason_missing.__wrapped__("native")
    monkeypatch.setattr(bridge, "fingerprint", lambda: sources.fingerprint(tmp_path))  # none, as in a wheel
    assert not bridge._is_stale(bridge._handles["native"])


def test_the_fingerprint_follows_the_sources(tmp_path):
    (tmp_path / "a.cpp").write_text("int a;")
    first = sources.fingerprint(tmp_path)
    (tmp_path / "third_party").mkdir()
    (tmp_path / "third_party" / "b.h").write_text("")
    assert sources.fingerprint(tmp_path) == first
    (tmp_path / "a.cpp").write_text("int b;")
    assert sources.fingerprint(tmp_path) != first
