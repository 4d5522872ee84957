"""The typed training loop, the shards of a batch and their gradients, and evaluation."""

from lowered_cnn.training.confusion import Confusion, confusion
from lowered_cnn.training.evaluation import Evaluation, evaluate
from lowered_cnn.training.loop import Training, fit, train
from lowered_cnn.training.metrics import Metric
from lowered_cnn.training.ranks import Ranks, join_ranks
from lowered_cnn.training.recipe import ADAPTIVE, BEST, COMPACT, OBJECTS, Recipe
from lowered_cnn.training.state import Record, State

__all__ = [
    "ADAPTIVE",
    "BEST",
    "COMPACT",
    "OBJECTS",
    "Confusion",
    "Evaluation",
    "Metric",
    "Ranks",
    "Recipe",
    "Record",
    "State",
    "Training",
    "confusion",
    "evaluate",
    "fit",
    "join_ranks",
    "train",
]
