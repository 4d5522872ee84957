"""What a training step costs: each layer's products, buffers and seconds, and the tree that adds up its shards."""

from lowered_cnn.descriptions import JSON
from lowered_cnn.gemm import ROLES
from lowered_cnn.ledger import Row, summary
from lowered_cnn.network import Network
from lowered_cnn.timing import timings
from lowered_cnn.training import Recipe
from lowered_cnn.training.gradients import shard_count
from lowered_cnn.training.reduction import deal

WORKERS = (1, 2, 4)
"""The numbers of workers that the page deals the shards to."""


def costs(network: Network, recipe: Recipe, *, timed: bool) -> dict[str, JSON]:
    """Return the ledger of one shard in the readable form and, if `timed`, how long each layer takes.

    `share` is the share of the peak that a layer reaches, and `peak` is in operations per second. The tree is that of
    one batch: for each number of workers, the shards of each worker, and the sums (into, from) in order.
    """
    ledger = summary(network, recipe.largest_shard)
    measured = timings(network, recipe.largest_shard, fused=False) if timed else None
    taken = {row.name: row for row in measured.rows} if measured else {}
    rows = []
    for row in ledger.rows:
        timing = taken.get(row.name)
        seconds: dict[str, JSON] = {
            "forward_seconds": timing.forward if timing else None,
            "backward_seconds": timing.backward if timing else None,
            "share": timing.share if timing else None,
        }
        rows.append(_row(row) | seconds)
    return {
        "batch": ledger.batch,
        "rows": list(rows),
        "peak": measured.peak if measured else None,
        "tree": [_tree(shard_count(recipe.batch_size, recipe.largest_shard), workers) for workers in WORKERS],
        "batch_size": recipe.batch_size,
        "shard_size": recipe.largest_shard,
    }


def _row(row: Row) -> dict[str, JSON]:
    wholes = [whole for role in ROLES if (whole := row.whole(role))]
    return {
        "name": row.name,
        "output_shape": list(row.output_shape),
        "parameters": row.parameters,
        "products": [
            {"role": each.role, "m": each.m, "k": each.k, "n": each.n, "count": each.count, "flops": each.flops}
            for each in wholes
        ],
        "bytes": row.bytes,
    }


def _tree(shards: int, workers: int) -> dict[str, JSON]:
    dealt = deal(range(shards), range(workers))
    return {
        "workers": workers,
        "shards": [list(dealt.shards.get(worker, ())) for worker in range(workers)],
        "sums": [list(pair) for pair in dealt.sums],
    }
