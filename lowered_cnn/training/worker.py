"""One worker's part of a step: the gradient of its shards, then its slice of the sum and the update."""

import math
from dataclasses import dataclass

import numpy as np

from lowered_cnn.augmentation import Augmentation
from lowered_cnn.losses import Loss
from lowered_cnn.network import Network
from lowered_cnn.optimizers import Optimizer, Update
from lowered_cnn.parameters import Parameter, ParameterVector
from lowered_cnn.training.board import Board
from lowered_cnn.training.gradients import Batch, ShardGradients, Totals, shard_count
from lowered_cnn.training.recipe import Recipe
from lowered_cnn.training.reduction import Rank, Reduction


@dataclass(frozen=True)
class Task:
    """What stays the same for a worker throughout training."""

    loss: Loss
    optimizer: Optimizer
    clip_norm: float | None
    seed: int
    shard_size: int
    rank: Rank
    parameters: tuple[Parameter, ...]
    """The network's, with the rates of the recipe: 0 for those that are frozen."""

    @classmethod
    def of(cls, recipe: Recipe, rank: Rank, network: Network) -> "Task":
        """Take from a recipe what workers need; its schedule need not be sent to them."""
        r, parameters = recipe, recipe.with_rates(network.parameters.parameters)
        return cls(r.loss, r.optimizer, r.clip_norm, r.seed, r.largest_shard, rank, parameters)


@dataclass(frozen=True)
class Step:
    """One step: its number (from 0) and epoch, its batch's size and `Loss.total`, its rate and augmentation."""

    number: int
    epoch: int
    examples: int
    total: float
    learning_rate: float
    augmentation: Augmentation | None


class Worker:
    """One of the workers that share a board; `network` uses the parameters on the board."""

    def __init__(self, network: Network, task: Task, board: Board, reduction: Reduction) -> None:
        self._board = board
        self._reduction = reduction
        self._shard_size = task.shard_size
        self._clip_norm = task.clip_norm
        self._gradients = ShardGradients(
            network,
            task.loss,
            shard_size=task.shard_size,
            seed=task.seed,
            gradient=reduction.gradient,
            frozen=frozenset(p.name for p in task.parameters if not p.rate),
        )
        owned = task.parameters
        buffers = dict(zip(task.optimizer.buffers, board.buffers, strict=True))
        self._update = Update(task.optimizer, ParameterVector(owned, board.parameters), buffers, reduction.part)
        self._sum = ParameterVector(owned, board.gradients[0])

    def run(self, step: Step) -> Totals:
        """Do this worker's part of a step, wait for the others, and return the batch's totals.

        If the loss is not a finite number, there is no update.
        """
        count = shard_count(step.examples, self._shard_size)
        shards = self._reduction.shards(count)
        totals = self._reduction.sum(
            count, self._gradients.sum(self._batch(step), shards) if shards else Totals(0, 0, 0)
        )
        if math.isfinite(totals.loss):
            self._apply(step)
        self._reduction.wait()
        return totals

    def first_fault(self, step: Step, shards: range) -> str | None:
        """Return where numbers that are not finite first appear in these shards, if they do."""
        return self._gradients.first_fault(self._batch(step), shards)

    def _apply(self, step: Step) -> None:
        update, gradients = self._update, self._sum
        scale = self._clipping()
        if scale < 1:
            gradients.vector[update.learned] *= scale
        gradients.vector[update.statistics] /= step.examples
        update.steps = step.number
        update.step(gradients, step.learning_rate)

    def _clipping(self) -> float:
        """Return the factor that scales the gradient down to the clip norm; every worker computes the same bits."""
        if self._clip_norm is None:
            return 1.0
        self._reduction.wait()
        norm = math.sqrt(np.sum(np.square(self._sum.learned, dtype=np.float64)))
        self._reduction.wait()
        return self._clip_norm / max(norm, self._clip_norm)

    def _batch(self, step: Step) -> Batch:
        board, here = self._board, slice(step.examples)
        weights = board.weights[here] if len(board.weights) else None
        examples = board.images[here], board.targets[here], board.examples[here]
        return Batch(*examples, step.number, step.epoch, step.total, weights, step.augmentation)
