"""The official `onnx` package, which builds and reads the protobuf, and the error if it is missing."""

from types import ModuleType

from lowered_cnn.arrays import InputError

PRODUCER = "lowered_cnn"
"""What models that are written here say that they come from."""


def onnx_package() -> ModuleType:
    """Return the package; raises InputError, which names the extra, if it is not installed."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        wanted = "the onnx package (pip install 'lowered-cnn[onnx]')"
        raise InputError("ONNX", wanted, f"no module named {error.name}") from error
    package: ModuleType = onnx
    return package
