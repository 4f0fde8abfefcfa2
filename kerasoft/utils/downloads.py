"""Files from the network: cached, checked, unpacked."""

from __future__ import annotations

import hashlib
import os
import pathlib
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import warnings
import zipfile
from typing import Any

from .progress import Progbar, print_msg

TIMEOUT_S = 60
_CHUNK_BYTES = 1 << 20


class DownloadError(Exception):
    """A file could not be had; the text names the address and where a copy may be put by hand."""


def cache_home() -> str:
    """Where downloads are kept: `$KERASOFT_HOME`, `$KERAS_HOME`, or `~/.keras`."""
    return os.environ.get("KERASOFT_HOME") or os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")


def get_file(
    fname: Any = None,
    origin: str | None = None,
    untar: bool = False,
    md5_hash: str | None = None,
    file_hash: str | None = None,
    cache_subdir: str = "datasets",
    hash_algorithm: str = "auto",
    extract: bool = False,
    archive_format: Any = "auto",
    cache_dir: Any = None,
    force_download: bool = False,
) -> str:
    """The path of a file, downloaded from `origin` unless it is in the cache.

    Args:
        fname: name in the cache; that of `origin` by default. With `extract`, the name of the folder.
        origin: address (http, https, file).
        untar, md5_hash: older forms of `extract` and `file_hash`.
        file_hash: SHA-256 or MD5 of the file in hex; a file in the cache with another one is downloaded again.
        cache_subdir: folder in the cache; an absolute path is used as it is.
        hash_algorithm: "md5", "sha256" or "auto" (by the length of `file_hash`).
        extract: whether to unpack an archive; the result is then the folder.
        archive_format: "tar", "zip", "auto" or a list of them.
        cache_dir: `$KERASOFT_HOME`, `$KERAS_HOME` or `~/.keras` by default.
        force_download: whether to download what is in the cache again.

    Raises:
        ValueError: no origin, a path as `fname`, another checksum than expected.
        DownloadError: the address cannot be reached.
    """
    if origin is None:
        raise ValueError('Please specify the "origin" argument (URL of the file to download).')
    if md5_hash is not None and file_hash is None:
        file_hash, hash_algorithm = md5_hash, "md5"
    folder = os.path.join(_writable(os.path.expanduser(cache_dir or cache_home())), cache_subdir)
    os.makedirs(folder, exist_ok=True)
    name = _file_name(fname, origin)
    target, extracted = os.path.join(folder, name), None
    if extract or untar:
        if fname and "." in name:
            extracted = os.path.join(folder, name[: name.find(".")] + "_extracted")
        else:
            target, extracted = os.path.join(folder, f"{name}_archive"), os.path.join(folder, name)
    if force_download or not _is_valid(target, file_hash, hash_algorithm):
        _download(origin, target)
        if file_hash is not None and not validate_file(target, file_hash, hash_algorithm):
            found = hash_file(target, _algorithm(hash_algorithm, file_hash))
            raise ValueError(
                f"Incomplete or corrupted file detected. The {hash_algorithm} file hash does not match the provided "
                f"value of {file_hash}: '{target}', downloaded from {origin}, has {found}."
            )
    if extracted is None:
        return target
    if not extract_archive(target, extracted, "tar" if untar else archive_format):
        warnings.warn("Could not extract archive.", stacklevel=2)
    return extracted


def _writable(folder: str) -> str:
    nearest = folder
    while not os.path.exists(nearest) and os.path.dirname(nearest) != nearest:
        nearest = os.path.dirname(nearest)
    return folder if os.access(nearest, os.W_OK) else os.path.join(tempfile.gettempdir(), ".keras")


def _file_name(fname: Any, origin: str) -> str:
    if not fname:
        name = os.path.basename(urllib.parse.urlsplit(origin).path)
        if not name:
            raise ValueError(
                f"Can't parse the file name from the origin provided: '{origin}'. Please specify the `fname` argument."
            )
        return name
    name = os.fspath(fname)
    if os.sep in name:
        raise ValueError(
            "Paths are no longer accepted as the `fname` argument. To specify the file's parent directory, use the "
            f"`cache_dir` argument. Received: fname={name}"
        )
    return name


def _is_valid(path: str, file_hash: str | None, algorithm: str) -> bool:
    if not os.path.exists(path):
        return False
    if file_hash is None or validate_file(path, file_hash, algorithm):
        return True
    print_msg(
        f"A local file was found, but it seems to be incomplete or outdated because the {algorithm} file hash does not "
        f"match the original value of {file_hash} so we will re-download the data."
    )
    return False


def _download(origin: str, target: str) -> None:
    """Writes beside `target` first, so that a broken download leaves nothing behind."""
    print_msg(f"Downloading data from {origin}")
    part = f"{target}.{os.getpid()}.part"
    try:
        with urllib.request.urlopen(origin, timeout=TIMEOUT_S) as response, open(part, "wb") as file:
            length = response.headers.get("Content-Length")
            bar, done = Progbar(int(length) if length else None, unit_name="byte"), 0
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                bar.update(done)
            if length and done != int(length):
                raise DownloadError(f"{origin} ended after {done} of {length} bytes")
        os.replace(part, target)
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(_failure(origin, target, f"{error.code} -- {error.msg}")) from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise DownloadError(_failure(origin, target, str(reason))) from error
    finally:
        if os.path.exists(part):
            os.remove(part)


def _failure(origin: str, target: str, reason: str) -> str:
    return f"URL fetch failure on {origin}: {reason}. Without a network, put a copy of the file at '{target}'."


def _algorithm(algorithm: str, file_hash: str | None = None) -> str:
    return "sha256" if algorithm == "sha256" or (algorithm == "auto" and len(file_hash or "") == 64) else "md5"


def hash_file(path: Any, algorithm: str = "sha256") -> str:
    """The SHA-256 or MD5 of a file in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, _algorithm(algorithm)).hexdigest()


def validate_file(path: Any, file_hash: str, algorithm: str = "auto") -> bool:
    """Whether a file has this checksum."""
    return hash_file(path, _algorithm(algorithm, file_hash)) == str(file_hash)


def extract_archive(file_path: str, path: str = ".", archive_format: Any = "auto") -> bool:
    """Unpacks a tar or zip file into the folder `path`; False when it is neither.

    Members that would land outside of the folder, links that lead out and device files are errors.
    """
    if archive_format is None:
        return False
    formats = ["tar", "zip"] if archive_format == "auto" else archive_format
    for kind in [formats] if isinstance(formats, str) else formats:
        if kind == "tar" and tarfile.is_tarfile(file_path):
            with tarfile.open(file_path) as archive:
                archive.extractall(path, filter="data")
            return True
        if kind == "zip" and zipfile.is_zipfile(file_path):
            with zipfile.ZipFile(file_path) as archive:
                _check_members(archive, path)
                archive.extractall(path)
            return True
        if kind not in ("tar", "zip"):
            raise NotImplementedError(kind)
    return False


def _check_members(archive: zipfile.ZipFile, path: str) -> None:
    root = pathlib.Path(path).resolve()
    for name in archive.namelist():
        if not (root / name).resolve().is_relative_to(root):
            raise ValueError(f"'{archive.filename}' holds '{name}', which would be written outside of '{path}'")
