"""Builds the native kernels of compiler/kernels/cpp beside the package; everything else stands in pyproject.toml.

They are optional: where they cannot be built (no x86-64, no compiler and no ziglang), kerasoft runs on XLA alone. The
compiler is $CXX, g++ or clang++, else the one in the ziglang package (see build_backend.py). One source gives one
library for each instruction set (x86-64-v3: AVX2 and FMA; x86-64-v4: AVX-512), of which the best is loaded.

KERASOFT_BUILD_NATIVE=0 leaves them out, a name (native, onednn, mkl, v3, v4, native_v3) builds one only; KERASOFT_REQUIRE_NATIVE=1 makes a
library that cannot be built an error.

In a checkout: python setup.py build_ext --inplace. That and an editable installation build for this machine's instruction set
only, in half the time; for all with KERASOFT_BUILD_NATIVE=all.
"""

import importlib.metadata
import os
import pathlib
import platform
import runpy
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = HERE / "compiler" / "kernels" / "cpp"
FLAGS = (
    "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -ffp-contract=fast "
    "-DNDEBUG -Wall -Wno-unknown-pragmas -Wno-unused-function"
).split()


def compiler() -> tuple[list[str], str]:
    """The command of a C++ compiler and the spelling of -march for a level."""
    for name in filter(None, (os.environ.get("CXX"), "g++", "clang++")):
        if shutil.which(name.split()[0]):
            return name.split(), "-march=x86-64-{}"
    import ziglang  # noqa: F401  (ModuleNotFoundError is told to the user)

    return [sys.executable, "-m", "ziglang", "c++", "-target", "x86_64-linux-gnu.2.28"], "-mcpu=x86_64_{}"


def onednn_headers() -> pathlib.Path | None:
    """The folder that holds oneapi/dnnl/dnnl.hpp."""
    try:
        files = importlib.metadata.files("onednn-devel-cpu-gomp") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if str(file).endswith("oneapi/dnnl/dnnl.hpp"):
            return pathlib.Path(file.locate()).resolve().parents[2]
    return None


def processor() -> dict:
    """compiler/kernels/processor.py, which is not installed yet."""
    return runpy.run_path(str(SOURCES.parent / "processor.py"))


def execute(command: list) -> None:
    """Runs a compiler; raises OSError with what it said if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=HERE)
    if done.returncode:
        raise OSError(f"{command[0]} failed:\n{done.stderr[-4000:]}")
    sys.stderr.write(done.stderr)


class Build(build_ext):
    """Compiles each source of each library by itself, as many at once as there are cores, and links."""

    def get_ext_filename(self, fullname):
        return os.path.join(*fullname.split(".")) + ".so"

    def flags(self, level: str) -> list[str]:
        """The compiler's command and options for an instruction set."""
        command, march = compiler()
        fingerprint = runpy.run_path(str(SOURCES.parent / "sources.py"))["fingerprint"]()
        includes = [f"-isystem{SOURCES / 'third_party'}", f"-isystem{SOURCES}"]
        return [*command, *FLAGS, march.format(level), f'-DKERASOFT_SOURCES="{fingerprint}"', *includes]

    def first(self, level: str, folder: pathlib.Path) -> list[str]:
        """Options that include XLA's header, half of a short source's time, as g++ has read it once and for all."""
        header = folder / level / "first.h"
        header.parent.mkdir()
        header.write_text('#include "xla/ffi/api/ffi.h"\n')
        if not self.flags(level)[0].endswith("g++"):
            return []
        execute([*self.flags(level), "-x", "c++-header", header, "-o", f"{header}.gch"])
        return ["-include", header]

    def start(self, ext: Extension, folder: pathlib.Path, first: dict, pool: ThreadPoolExecutor) -> list:
        """The objects of a library, as futures."""
        name = ext.name.rpartition(".")[2]
        level = name.rpartition("_")[2]
        headers = onednn_headers() if name.startswith("onednn") else None
        more = [f"-isystem{headers}"] if headers else []

        def compiled(source):
            if name.startswith("onednn") and not headers:
                raise FileNotFoundError("oneDNN's headers (the package onednn-devel-cpu-gomp) are not installed")
            made = folder / name / (pathlib.Path(source).stem + ".o")
            execute([*self.flags(level), *more, *first[level].result(), "-c", source, "-o", made])
            return made

        (folder / name).mkdir()
        return [pool.submit(compiled, source) for source in ext.sources]

    def link(self, ext: Extension, objects: list):
        target = pathlib.Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        made = target.with_name(target.name + f".{os.getpid()}")  # a library that is in use must not be written to
        execute([*self.flags(ext.name.rpartition("_")[2]), "-shared", *objects, "-o", made, "-lpthread"])
        os.replace(made, target)

    def run(self):
        wanted = os.environ.get("KERASOFT_BUILD_NATIVE", "")
        if wanted == "0":
            return
        extensions = [ext for ext in self.extensions if wanted == "all" or wanted in ext.name]
        chosen = wanted == "all" or any(level in wanted for level in processor()["LEVELS"])
        here = processor()["levels"]() if self.inplace and not chosen else []
        if here:  # else this machine runs none of them, and who builds here wants them for others
            extensions = [ext for ext in extensions if ext.name.endswith(here[0])]
        levels = {ext.name.rpartition("_")[2] for ext in extensions}
        with tempfile.TemporaryDirectory() as made, ThreadPoolExecutor(os.cpu_count()) as pool:
            folder = pathlib.Path(made)
            first = {level: pool.submit(self.first, level, folder) for level in levels}
            begun = [self.start(ext, folder, first, pool) for ext in extensions]
            for ext, objects in zip(extensions, begun):
                try:
                    self.link(ext, [one.result() for one in objects])
                except Exception as error:
                    self.warn(f"{ext.name} was not built, kerasoft will run without it: {error}")
                    if os.environ.get("KERASOFT_REQUIRE_NATIVE") == "1":
                        raise
        self.copy_into_checkout()

    def copy_into_checkout(self):
        """--inplace and editable installs read the libraries from the source folder."""
        if not self.inplace:
            return
        for ext in self.extensions:
            made = pathlib.Path(self.get_ext_fullpath(ext.name))
            wanted = HERE / "compiler" / "kernels" / "lib" / made.name
            if made.exists() and made.resolve() != wanted.resolve():
                wanted.parent.mkdir(parents=True, exist_ok=True)
                os.replace(made, wanted)


def libraries() -> list[Extension]:
    if platform.machine() != "x86_64" or sys.platform != "linux":
        return []
    found = []
    for name, sources in (("native", "*.cpp"), ("onednn", "onednn/*.cpp"), ("mkl", "mkl/*.cpp")):
        files = sorted(str(p.relative_to(HERE)) for p in SOURCES.glob(sources))
        if files:
            found += [
                Extension(f"kerasoft.compiler.kernels.lib.{name}_{level}", files) for level in processor()["LEVELS"]
            ]
    return found


setup(ext_modules=libraries(), cmdclass={"build_ext": Build})
