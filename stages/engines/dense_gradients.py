"""The backward pass of the dense layers, written out: what autograd computes, without a graph made for each batch.

For batches this small the graph, its nodes and the gradients that it hands from one to the next take as long as the
arithmetic.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stages.engines.flat_parameters import gradient_of


@torch.no_grad()
def backpropagate(layers: Sequence[nn.Linear], vectors: Tensor, stars: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of linear layers with ReLU between them, whose parameters are left with its gradients.

    Args:
        layers: their parameters' `grad` is there already, as `FlatParameters` makes it; it is overwritten. Fastest with
            weights column after column in memory, as `linear_by_columns` of `train_torch` makes them.
        vectors: what goes into the first layer, (batch, fan_in).
        stars: what should come out of the last one, (batch,).

    Returns:
        The loss, and its gradient with respect to the vectors, (batch, fan_in).
    """
    inputs = [vectors]
    for layer in layers[:-1]:
        inputs.append(torch.addmm(layer.bias, inputs[-1], layer.weight.T).relu_())
    errors = torch.addmm(layers[-1].bias, inputs[-1], layers[-1].weight.T).squeeze(1) - stars

    gradient = (errors * (2 / len(stars))).unsqueeze(1)
    for layer, values in zip(reversed(layers), reversed(inputs), strict=True):
        torch.mm(values.T, gradient, out=gradient_of(layer.weight).T)
        torch.sum(gradient, 0, out=gradient_of(layer.bias))
        gradient = gradient @ layer.weight
        if values is not vectors:
            gradient = torch.ops.aten.threshold_backward(gradient, values, 0)  # ReLU's own kernel: a mask takes longer
    return errors.square().mean(), gradient
