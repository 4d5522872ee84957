"""The operations that the networks need, as the ledger counts them."""

from benchmarking.questions import INPUT_SHAPE
from benchmarking.work import Cost
from lowered_cnn import Network, summary
from lowered_cnn.models import MODELS


def cost(network: str, batch: int) -> Cost:
    """Return the operations of all matrix products in a training step, and in the forward pass alone."""
    ledger = summary(Network(MODELS[network](), INPUT_SHAPE), batch)
    forward = sum(product.flops for row in ledger.rows for product in row.products if product.role == "forward")
    return Cost(network, batch, ledger.flops, forward)
