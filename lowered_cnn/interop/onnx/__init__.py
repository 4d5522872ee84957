"""ONNX (extra `onnx`): export networks as models, import models as networks."""

from lowered_cnn.interop.onnx.exporter import save_onnx, to_onnx
from lowered_cnn.interop.onnx.importer import from_onnx

__all__ = ["from_onnx", "save_onnx", "to_onnx"]
