"""Builds the native kernels of compiler/kernels/cpp beside the package; everything else stands in pyproject.toml.

They are optional: where they cannot be built (no x86-64, no compiler and no ziglang), kerasoft runs on XLA alone. The
compiler is $CXX, g++ or clang++, else the one in the ziglang package (see build_backend.py). One source gives one
library for each instruction set (x86-64-v3: AVX2 and FMA; x86-64-v4: AVX-512), of which the best is loaded.

KERASOFT_BUILD_NATIVE=0 leaves them out, a name (native, onednn, mkl) builds one only; KERASOFT_REQUIRE_NATIVE=1 makes a
library that cannot be built an error.

In a checkout: python setup.py build_ext --inplace
"""

import importlib.metadata
import os
import pathlib
import platform
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = HERE / "compiler" / "kernels" / "cpp"
LEVELS = ("v3", "v4")
FLAGS = (
    "-std=c++17 -O3 -fPIC -shared -fvisibility=hidden -fno-math-errno -fno-trapping-math -ffp-contract=fast "
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


class Build(build_ext):
    """Compiles the sources of each library with one command."""

    def get_ext_filename(self, fullname):
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext):
        target = pathlib.Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        command, march = compiler()
        with_onednn = onednn_headers() if ext.name.rpartition(".")[2].startswith("onednn") else None
        if ext.name.rpartition(".")[2].startswith("onednn") and with_onednn is None:
            raise FileNotFoundError("oneDNN's headers (the package onednn-devel-cpu-gomp) are not installed")
        includes = [SOURCES / "third_party", SOURCES, *([with_onednn] if with_onednn else [])]
        level = ext.name.rpartition("_")[2]
        made = target.with_name(target.name + f".{os.getpid()}")  # a library that is in use must not be written to
        run = [
            *command,
            *FLAGS,
            march.format(level),
            f'-DKERASOFT_SOURCES="{runpy.run_path(str(SOURCES.parent / "sources.py"))["fingerprint"]()}"',
            *(f"-isystem{i}" for i in includes),
            *ext.sources,
            "-o",
            str(made),
        ]
        done = subprocess.run([*run, "-lpthread"], capture_output=True, text=True, cwd=HERE)
        if done.returncode:
            raise OSError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        sys.stderr.write(done.stderr)
        os.replace(made, target)

    def run(self):
        wanted = os.environ.get("KERASOFT_BUILD_NATIVE", "")
        if wanted == "0":
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            builds = {ext.name: pool.submit(self.build_extension, ext) for ext in self.extensions if wanted in ext.name}
        for name, build in builds.items():
            try:
                build.result()
            except Exception as error:
                self.warn(f"{name} was not built, kerasoft will run without it: {error}")
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
            found += [Extension(f"kerasoft.compiler.kernels.lib.{name}_{level}", files) for level in LEVELS]
    return found


setup(ext_modules=libraries(), cmdclass={"build_ext": Build})
