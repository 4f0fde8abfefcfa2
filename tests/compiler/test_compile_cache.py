"""The default folder of compiled executables: where it is, who may write there, how large it gets; kept memory."""

import os
import pathlib
import subprocess
import sys

import pytest
from kerasoft.compiler import compile_cache

ROOT = pathlib.Path(__file__).parents[2]
FIT = """
import sys
import numpy as np, kerasoft as ks
from kerasoft.compiler.program import cache_hits, compilations
units = 64
model = ks.Sequential([ks.Input((8, 8, 3)), ks.layers.Conv2D(units, 3), ks.layers.Flatten(),
                       *[ks.layers.Dense(units, "gelu") for _ in range(6)], ks.layers.Dense(1)])
model.compile("adam", "mse")
model.fit(np.ones((8, 8, 8, 3), "f"), np.ones((8, 1), "f"), verbose=0)
print(cache_hits(), model.last_fit_profile.seconds["compile"] > 0)
"""


def fitted(**environment):
    done = subprocess.run(
        [sys.executable, "-c", FIT], env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout.split()


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    assert fitted(KERASOFT_COMPILE_CACHE="", XDG_CACHE_HOME=str(tmp_path)) == ["0", "True"]
    (folder,) = (tmp_path / "kerasoft").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700 and any(folder.iterdir())
    hits, _ = fitted(KERASOFT_COMPILE_CACHE="", XDG_CACHE_HOME=str(tmp_path))
    assert int(hits) >= 1


@pytest.fixture
def fresh(monkeypatch):
    """`use_default_cache` as if never called; JAX's settings are put back."""
    import jax

    names = [n for n in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
             "jax_persistent_cache_min_entry_size_bytes", "jax_persistent_cache_enable_xla_caches")]  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    compile_cache.use_default_cache.cache_clear()
    yield compile_cache.use_default_cache
    for name, value in before.items():
        jax.config.update(name, value)
    compile_cache.use_default_cache.cache_clear()


def test_off_and_folders_that_others_may_write_into(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASOFT_COMPILE_CACHE", "off")
    assert fresh() is None
    fresh.cache_clear()
    monkeypatch.setenv("KERASOFT_COMPILE_CACHE", str(tmp_path))
    folder = pathlib.Path(fresh())
    assert folder.parent == tmp_path
    import jax

    jax.config.update("jax_compilation_cache_dir", None)
    fresh.cache_clear()
    folder.chmod(0o777)
    assert fresh() is None


def test_the_folder_is_bounded_and_old_files_go_first(tmp_path):
    for age in range(10):
        path = tmp_path / str(age)
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    compile_cache._shrink(tmp_path, 1000)
    assert len(os.listdir(tmp_path)) == 10
    compile_cache._shrink(tmp_path, 800)
    assert sorted(os.listdir(tmp_path)) == list("012345")


def test_freed_memory_is_kept():
    """In a process of its own: a call with 64 MB of temporaries faults no pages in when it is made again."""
    for setting, kept in (("", True), ("system", False)):
        out = subprocess.run(
            [sys.executable, "-c", FAULTS],
            env={**os.environ, "KERASOFT_ALLOCATOR": setting},
            capture_output=True,
            text=True,
        )
        assert out.returncode == 0, out.stderr
        way, faults, in_use = out.stdout.split()
        if kept and way == "None":
            pytest.skip("another allocator than glibc's")
        assert (way == "None") is not kept
        assert int(faults) < 1000 or not kept, "64 MB are 16,384 pages, which were in memory already"
        assert int(in_use) < 16 << 20, "freed blocks are not counted as in use"


FAULTS = """
import resource
import jax, jax.numpy as jnp
from kerasoft.compiler import allocator
from kerasoft.compiler.kernels import bridge

def writable():
    # bytes of jaxlib's libraries that are mapped writable
    found = 0
    for line in open("/proc/self/maps"):
        ends, rights, *_, path = line.split(None, 5)[:6] if len(line.split()) > 5 else (*line.split()[:2], "")
        if "w" in rights and "jaxlib" in path:
            begin, end = (int(part, 16) for part in ends.split("-"))
            found += end - begin
    return found

jax.devices()
before = writable()
way = allocator.keep_memory()
assert writable() == before, "what the loader made read-only is read-only again"
x = jnp.ones(1 << 20)
made = jax.jit(lambda x: jnp.concatenate([x] * 16))
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    made(x).block_until_ready()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(way, faults, bridge.large_blocks()[0] if way == "blocks" else 0)
"""
