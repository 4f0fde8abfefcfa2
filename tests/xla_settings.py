"""XLA's settings in tests: compiling is most of a test's time, and what it compiled runs once or twice.

So tests compile with QUICK: two to five times faster, and the same up to rounding. Those marked `shipped`, on whose bits or
speed the settings bear, compile as users do, and so does everything with KERASOFT_TEST_XLA=shipped.

What JAX does before XLA takes longer yet: it makes a context of MLIR, with all dialects, for each function that it lowers, and
notes the Python stack of each operation. Tests share one context a thread for some hundred functions, and note no stacks.
"""

import os
import threading

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
LOWERINGS = 200  # by one context of MLIR, which keeps all types and attributes that it has seen
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
    if os.environ.get("KERASOFT_TEST_XLA") != "shipped":
        _share_contexts()


def _share_contexts() -> None:
    import jax
    from jax._src.interpreters import mlir

    original, ours = mlir.make_ir_context, threading.local()

    def make_ir_context():
        if not getattr(ours, "left", 0):
            ours.context, ours.left = original(), LOWERINGS
        ours.left -= 1
        return ours.context

    mlir.make_ir_context = make_ir_context
    jax.config.update("jax_traceback_in_locations_limit", 0)


def forget() -> None:
    """Lets go of all that was compiled."""
    import jax
    from kerasoft.compiler import executables

    jax.clear_caches()
    executables.forget()
