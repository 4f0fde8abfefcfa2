"""The compiler: typed graph, gradients, passes, lowering through JAX/XLA, and the `StepProgram` that travels."""

if __name__ != "kerasoft.compiler":
    raise ImportError(f"this folder is the package kerasoft.compiler, not {__name__!r}: use `import kerasoft.compiler`")
