"""Kernels of our own beside XLA's, and the choice among them. See docs/design/0006-native-kernels.md.

`bridge` loads the native libraries and registers their XLA FFI targets; `lowerings` is the table of further lowerings of
an op; `choice` picks one for an op's shapes.
"""
