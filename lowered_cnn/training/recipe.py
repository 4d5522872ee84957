"""The recipe: every choice of a training but the network, the data and the machine."""

from dataclasses import dataclass

from lowered_cnn.arrays import whole_number
from lowered_cnn.losses import Loss, SoftmaxCrossEntropy
from lowered_cnn.optimizers import SGD, Optimizer
from lowered_cnn.schedules import OneCycle, Schedule


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults were chosen for MNIST on its dev split. `seed` decides the order of the examples."""

    epochs: int = 3
    batch_size: int = 64
    optimizer: Optimizer = SGD(learning_rate=0.05, momentum=0.9, nesterov=True, l2=1e-3)
    schedule: Schedule = OneCycle(warmup=0.15)
    loss: Loss = SoftmaxCrossEntropy()
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("Recipe: epochs", self.epochs, 1)
        whole_number("Recipe: batch_size", self.batch_size, 1)
        whole_number("Recipe: seed", self.seed, 0)

    def steps(self, examples: int, epochs: int | None = None) -> int:
        """Return the number of steps in so many epochs, by default in all, over so many examples."""
        return -(-examples // self.batch_size) * (self.epochs if epochs is None else epochs)
