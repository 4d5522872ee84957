"""The default command's training run in PyTorch: the same network, initial weights and recipe."""

import torch
from torch.nn import functional

from benchmarking.framework import Floats
from benchmarking.mnist import Predict, Run, main
from benchmarking.with_torch import module
from lowered_cnn.arrays import Array


def trained(run: Run) -> Predict:
    """Take the steps of the run, and return the predictions of the module."""
    net, sgd = module(run.network), run.sgd
    images, labels = torch.from_numpy(run.images), torch.from_numpy(run.labels)
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": sgd.l2}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=sgd.learning_rate, momentum=sgd.momentum, nesterov=sgd.nesterov, fused=True)
    for rate, indices in run.steps():
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        chosen = torch.from_numpy(indices)
        functional.cross_entropy(net(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    net.eval()

    def predict(images: Floats) -> Array:
        with torch.inference_mode():
            outputs: Array = net(torch.from_numpy(images)).numpy()
        return outputs

    return predict


if __name__ == "__main__":
    main(__doc__, trained)
