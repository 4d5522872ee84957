"""What a training starts from with --from: the network of an earlier run, or an ONNX model."""

from dataclasses import dataclass
from pathlib import Path

from lowered_cnn.arrays import InputError
from lowered_cnn.cli.run_folder import RunFolder
from lowered_cnn.data import Dataset
from lowered_cnn.descriptions import JSON
from lowered_cnn.layers import Transpose
from lowered_cnn.network import Network

CHANNELS_FIRST = Transpose((2, 0, 1))
"""The first layer of a network for images (H, W, C)."""


@dataclass(frozen=True, eq=False)
class Origin:
    """A network, the names of its classes if they are known, and what a run records of it."""

    network: Network
    classes: list[str] | None
    settings: dict[str, JSON]

    @classmethod
    def of(cls, path: Path) -> "Origin":
        """Read the network of a run's folder or of an ONNX file."""
        where: dict[str, JSON] = {"from": str(path.resolve())}
        if path.is_dir():
            folder = RunFolder.open(path)
            model = {name: folder.config.get(name) for name in ("model", "model_file")}
            return cls(folder.network(), folder.classes, {**model, **where})
        if path.suffix == ".onnx":
            from lowered_cnn.interop.onnx import from_onnx

            network = from_onnx(path)
            if network.model.inside[:1] == (CHANNELS_FIRST,):  # Keras has the channels last, unlike data sets of images
                _, network = network.split(network.model.names[1])
            return cls(network, None, {"model": path.name, "model_file": None, **where})
        raise InputError("--from", "the folder of a run, or FILE.onnx", path)

    def network_for(self, data: Dataset, seed: int) -> tuple[Network, list[str]]:
        """Return the network for these data, and lines that say what has changed.

        It takes images of their shape and, unless the classes are the same, has a new head. Raises InputError if it
        cannot take images of that shape, or a new head.
        """
        network, changes = self.network, []
        if network.input_shape != data.image_shape:
            network = network.for_inputs(data.image_shape)
            changes.append(f"inputs {network.input_shape} instead of {self.network.input_shape}")
        classes = len(data.classes)
        if network.output_shape != (classes,) or self.classes not in (None, list(data.classes)):
            network = network.with_head(classes, seed=seed)
            names, before = ", ".join(data.classes), self.network.output_shape[0]
            changes.append(f"a new {network.model.names[-1]} for the classes {names}, instead of {before} others")
        return network, changes
