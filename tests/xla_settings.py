"""XLA's settings in tests: compiling is most of a test's time, and what it compiled runs once or twice.

So tests compile with QUICK: two to five times faster, and the same up to rounding. Those marked `shipped`, on whose bits or
speed the settings bear, compile as users do, and so does everything with KERASOFT_TEST_XLA=shipped.
"""

import os

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
SHIPPED = {  # XLA's defaults
    "xla_backend_optimization_level": 3,
    "xla_cpu_use_fusion_emitters": True,
    "xla_cpu_parallel_codegen_split_count": 32,
}
_GIVEN = os.environ.get("XLA_FLAGS", "")
_now: dict[str, object] = {}


def use(shipped: bool) -> None:
    """From here on, in this process and in those it starts; what was compiled otherwise is forgotten."""
    wanted = SHIPPED if shipped or os.environ.get("KERASOFT_TEST_XLA") == "shipped" else QUICK
    if _now == wanted:
        return
    if not _now:
        _install()
    _now.update(wanted)
    flags = [f"--{name}={str(value).lower()}" for name, value in wanted.items()]
    os.environ["XLA_FLAGS"] = " ".join([*flags, _GIVEN])
    forget()


def _install() -> None:
    """Options of one executable are stronger than XLA_FLAGS, which XLA reads once."""
    from jax._src import compiler

    original = compiler.get_compile_options

    def get_compile_options(*args, env_options_overrides=None, **kwargs):
        return original(*args, env_options_overrides={**_now, **(env_options_overrides or {})}, **kwargs)

    compiler.get_compile_options = get_compile_options


def forget() -> None:
    """Lets go of all that was compiled."""
    import jax
    from kerasoft.compiler import executables

    jax.clear_caches()
    executables.forget()
