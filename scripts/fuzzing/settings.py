"""Settings: descriptions in JSON, and the files of a run's folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.mutations import tree_changed, words_of
from fuzzing.target import Mutation, Target
from lowered_cnn import (
    SGD,
    Adam,
    AdamW,
    Augmentation,
    Constant,
    Cosine,
    MeanSquaredError,
    OneCycle,
    Plateau,
    Recipe,
    RMSprop,
    StepDecay,
    __all__,
)
from lowered_cnn.arrays import InputError
from lowered_cnn.cli.run_folder import CONFIG, RunFolder
from lowered_cnn.descriptions import describe, restore
from lowered_cnn.training import BEST
from lowered_cnn.verify.sampled import draw as drawn

DEEP = b"[" * 3000 + b"]" * 3000
"""More levels of JSON than Python reads."""

VALUES: tuple[object, ...] = (
    *(drawn(seed).model for seed in range(12)),
    *(SGD(0.1, 0.9, True, 1e-3), Adam(), AdamW(), RMSprop(0.1, momentum=0.9, centered=True), MeanSquaredError()),
    *(Constant(), Cosine(), OneCycle(), StepDecay(), Plateau(least=0.01)),
    *(Augmentation(shift=2, rotation=12, elastic=0.6), Recipe(patience=3, min_delta=0.1, clip_norm=1), BEST),
)


class JsonTarget(Target):
    """A reader of JSON."""

    def __init__(self, folder: Any) -> None:
        super().__init__(folder)
        trees = [json.loads(content) for content in self.seeds()]
        self.words = sorted(set[str]().union(__all__, *map(words_of, trees)))

    def mutate(self, content: bytes, plain: Mutation, draw: Random) -> bytes:
        """Change the text or, if it is JSON, the tree."""
        try:
            tree = json.loads(content)
        except (ValueError, RecursionError):
            return plain(content)
        if draw.random() < 0.2:
            return plain(content)
        if draw.random() < 0.001:
            return DEEP
        return json.dumps(tree_changed(tree, self.words, draw)).encode()


class Description(JsonTarget):
    """Layers and recipes as JSON: what is restored is described, and restored once more as the same."""

    def seeds(self) -> Iterator[bytes]:
        """Yield networks with all layers, recipes and their parts."""
        for value in VALUES:
            yield json.dumps(describe(value)).encode()

    def read(self, content: bytes) -> object:
        """Restore what the JSON describes, if it is JSON."""
        try:
            tree = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError("JSON", "a text", "another") from error
        return restore(tree)

    def verify(self, content: bytes, value: Any) -> None:
        """Describe, and restore again."""
        again = restore(json.loads(json.dumps(describe(value))))
        assert again == value, "another value"


STEPS = 2


class RunSettings(JsonTarget):
    """The settings of a run, a zero byte, and its metrics, of which the lines of the first steps are kept."""

    def seeds(self) -> Iterator[bytes]:
        """Yield what `lowered-cnn train` writes."""
        config = {
            "lowered_cnn": "0.1.0", "data": "/data", "mnist_style": False, "dev_size": 5000, "model": "compact",
            "workers": 2, "seed": 0, "training_images": 55000, "classes": ["0", "1"], "epochs": 3, "batch_size": 64,
            "recipe": "Recipe()",
        }  # fmt: skip
        yield json.dumps({**config, "data": None, "mnist_style": True}).encode()
        yield json.dumps(config).encode()

    def mutate(self, content: bytes, plain: Mutation, draw: Random) -> bytes:
        """Change one of the two."""
        config, _, metrics = content.partition(b"\0")
        if draw.random() < 0.2:
            lines = metrics or b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'
            return config + b"\0" + plain(lines)
        return super().mutate(config, plain, draw) + b"\0" * bool(metrics) + metrics

    def read(self, content: bytes) -> object:
        """Read all settings, and go on with the metrics."""
        config, _, metrics = content.partition(b"\0")
        folder = self.path.parent
        (folder / CONFIG).write_bytes(config)
        (folder / "metrics.jsonl").write_bytes(metrics)
        run = RunFolder.open(folder, CONFIG)
        file = run.open_metrics(STEPS)
        assert file is not None
        file.write("behind\n")
        file.close()
        numbers = {name: run.number(name) for name in ("dev_size", "seed", "workers", "epochs")}
        return {"classes": run.classes, "source": run.source, "mnist_style": run.has_mnist_style, **numbers}

    def verify(self, content: bytes, value: Any) -> None:
        """Compare with the JSON, and the metrics with those before."""
        text, _, metrics = content.partition(b"\0")
        config = json.loads(text)
        assert value["source"] == (None if config["data"] is None else Path(config["data"])), "another folder"
        assert value["classes"] == config["classes"], "other classes"
        assert len(set(value["classes"])) == len(value["classes"]), "a class twice"
        for name in ("dev_size", "seed", "workers", "epochs", "mnist_style"):
            assert (value[name], type(value[name])) == (config[name], type(config[name])), f"another {name}"
        kept, _, behind = (self.path.parent / "metrics.jsonl").read_bytes().rpartition(b"behind\n")
        assert behind == b"", "metrics behind the last"
        assert metrics.startswith(kept), "other metrics"
