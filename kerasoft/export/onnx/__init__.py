"""ONNX: compiler graphs as ONNX graphs, one small rule for each op."""

from .writer import write_onnx

__all__ = ["write_onnx"]
