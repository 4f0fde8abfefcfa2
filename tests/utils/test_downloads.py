"""`get_file`: cache, checksums, archives, and a server on loopback."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import pytest

import kerasoft as ks
from kerasoft.utils.downloads import DownloadError, cache_home


@pytest.fixture
def served(tmp_path):
    """A folder and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_download_and_cache(served, tmp_path, capsys):
    folder, address = served
    (folder / "a.bin").write_bytes(b"1234")
    get = functools.partial(ks.utils.get_file, origin=address + "a.bin", cache_dir=tmp_path)
    path = get()
    assert path == f"{tmp_path}/datasets/a.bin" and open(path, "rb").close() is None
    shown = capsys.readouterr().out
    assert f"Downloading data from {address}a.bin" in shown and "4/4" in shown
    (folder / "a.bin").write_bytes(b"5678")
    assert get() == path and b"1234" == (tmp_path / "datasets" / "a.bin").read_bytes()
    sha = hashlib.sha256(b"5678").hexdigest()
    get(file_hash=sha)
    assert "file hash does not match the original value" in capsys.readouterr().out
    assert (tmp_path / "datasets" / "a.bin").read_bytes() == b"5678"
    get(md5_hash=hashlib.md5(b"5678").hexdigest(), force_download=True)
    with pytest.raises(ValueError, match="Incomplete or corrupted file detected"):
        get(file_hash="0" * 64)
    assert get("b.bin", cache_subdir="other") == f"{tmp_path}/other/b.bin"
    assert not [p for p in tmp_path.rglob("*.part")]


def test_archives(served, tmp_path):
    folder, address = served
    with tarfile.open(folder / "t.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("inside/x.txt")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        archive.writestr("y.txt", "yo")
    path = ks.utils.get_file("data", address + "t.tar.gz", extract=True, cache_dir=tmp_path)
    assert path == f"{tmp_path}/datasets/data" and (tmp_path / "datasets/data/inside/x.txt").read_text() == "hi"
    path = ks.utils.get_file("z.zip", address + "z.zip", extract=True, cache_dir=tmp_path)
    assert path.endswith("z_extracted") and (tmp_path / "datasets/z_extracted/y.txt").read_text() == "yo"
    (folder / "plain").write_text("x")
    with pytest.warns(UserWarning, match="Could not extract archive"):
        ks.utils.get_file(origin=address + "plain", extract=True, cache_dir=tmp_path)


def test_archives_that_would_write_elsewhere(served, tmp_path):
    folder, address = served
    with tarfile.open(folder / "t.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../outside.txt"), io.BytesIO(b""))
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        archive.writestr("../outside.txt", "")
    with pytest.raises(tarfile.OutsideDestinationError):
        ks.utils.get_file("t", address + "t.tar", extract=True, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="would be written outside"):
        ks.utils.get_file("z", address + "z.zip", extract=True, cache_dir=tmp_path)
    assert not (tmp_path / "datasets" / "outside.txt").exists()


def test_errors(served, tmp_path):
    _, address = served
    with pytest.raises(ValueError, match='specify the "origin" argument'):
        ks.utils.get_file("x")
    with pytest.raises(ValueError, match="Can't parse the file name"):
        ks.utils.get_file(origin=address, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="Paths are no longer accepted"):
        ks.utils.get_file("a/b", address + "x", cache_dir=tmp_path)
    with pytest.raises(DownloadError) as error:
        ks.utils.get_file(origin=address + "missing.h5", cache_dir=tmp_path)
    assert "URL fetch failure on" in str(error.value) and "404" in str(error.value)
    assert f"put a copy of the file at '{tmp_path}/datasets/missing.h5'" in str(error.value)


def test_home(monkeypatch):
    monkeypatch.setenv("KERAS_HOME", "/k")
    assert cache_home() == "/k"
    monkeypatch.setenv("KERASOFT_HOME", "/s")
    assert cache_home() == "/s"
