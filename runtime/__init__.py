"""The runtime: ships a `StepProgram` to Spark executors and trains it with AllReduce."""

if __name__ != "kerasoft.runtime":
    raise ImportError(f"this folder is the package kerasoft.runtime, not {__name__!r}: use `import kerasoft.runtime`")
