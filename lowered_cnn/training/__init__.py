"""The typed training loop, the shards of a batch and their gradients, and evaluation."""

from lowered_cnn.training.evaluation import Evaluation, evaluate
from lowered_cnn.training.loop import Record, Training, train
from lowered_cnn.training.recipe import BEST, Recipe

__all__ = ["BEST", "Evaluation", "Recipe", "Record", "Training", "evaluate", "train"]
