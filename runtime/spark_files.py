"""Folders on any file system that Spark reaches (HDFS, object stores, NFS), through the driver's JVM."""

from __future__ import annotations

import pathlib
from typing import Any

from .errors import CheckpointError


class HadoopFolder:
    """A `kerasoft.runtime.checkpoint.Folder` at a Hadoop path or URI.

    Args:
        context: the SparkContext, for its JVM and Hadoop configuration.
        where: a path on the default file system, or a URI such as ``hdfs://name/fits/one``.

    Raises:
        CheckpointError: no file system for the URI, or it refuses.
    """

    def __init__(self, context: Any, where: str):
        self.where = where
        self._jvm = context._jvm
        self._configuration = context._jsc.hadoopConfiguration()
        with _explained(where):
            self._root = self._jvm.org.apache.hadoop.fs.Path(where)
            self._files = self._root.getFileSystem(self._configuration)

    def _path(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(self._root, name)

    def names(self) -> list[str]:
        with _explained(self.where):
            if not self._files.exists(self._root):
                return []
            return sorted(status.getPath().getName() for status in self._files.listStatus(self._root))

    def put(self, local: pathlib.Path, name: str) -> None:
        beside = self._path(f".{name}")
        with _explained(self.where):
            self._files.mkdirs(self._root)
            self._files.delete(beside, True)
            self._files.copyFromLocalFile(False, True, self._jvm.org.apache.hadoop.fs.Path(local.as_uri()), beside)
            if not self._files.rename(beside, self._path(name)):
                raise CheckpointError(f"{self.where}: could not rename .{name} to {name}")

    def get(self, name: str, local: pathlib.Path) -> None:
        with _explained(self.where):
            target = self._jvm.org.apache.hadoop.fs.Path(local.as_uri())
            self._files.copyToLocalFile(False, self._path(name), target, True)

    def remove(self, name: str) -> None:
        with _explained(self.where):
            self._files.delete(self._path(name), True)


class _explained:
    """Turns a Java exception into a CheckpointError that names the folder."""

    def __init__(self, where: str):
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        from py4j.protocol import Py4JJavaError

        if isinstance(error, Py4JJavaError):
            cause = error.java_exception
            raise CheckpointError(
                f"checkpoint folder {self.where!r}: {cause.getClass().getName()}: {cause.getMessage()}"
            )
