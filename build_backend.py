"""setuptools' build backend, which asks for a compiler from PyPI only where the machine has none."""

import os
import shutil

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

HEADERS = "onednn-devel-cpu-gomp==2023.2.0 ; platform_machine == 'x86_64' and sys_platform == 'linux'"
COMPILER = "ziglang ; platform_machine == 'x86_64' and sys_platform == 'linux'"


def _needs() -> list[str]:
    here = [name for name in (os.environ.get("CXX", "").split()[:1] or [""]) + ["g++", "clang++"] if name]
    return [HEADERS] if any(map(shutil.which, here)) else [HEADERS, COMPILER]


def get_requires_for_build_wheel(config_settings=None):
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_needs()]


def get_requires_for_build_editable(config_settings=None):
    return [*build_meta.get_requires_for_build_editable(config_settings), *_needs()]
