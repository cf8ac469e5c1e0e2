"""What makes the PyTorch trainer fast: all parameters in one vector, and gradients that stay where they are.

- Adam updates one long vector in one call, not a dozen short ones.
- The tables' gradient is never allocated again: a step adds its own rows' gradients and afterwards clears those rows.
- All tables are one, so that a single look-up fetches a batch's vectors side by side.

The arithmetic is that of `nn.Embedding`, `zero_grad()` and one Adam over all parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FlatParameters:
    """A module's parameters, made views of one vector: the rows of its embedding tables first, then all others.

    The module works on as before; only the gradients of its tables come by `add_rows`.
    """

    def __init__(self, tables: Sequence[nn.Embedding], others: Sequence[nn.Parameter]) -> None:
        parameters = [*(table.weight for table in tables), *others]
        self.dim = tables[0].embedding_dim
        self.starts = [sum(table.num_embeddings for table in tables[:position]) for position in range(len(tables))]
        self.flat = nn.Parameter(
            torch.cat([_in_memory_order(parameter).flatten() for parameter in parameters]).detach()
        )
        self.flat.grad = torch.zeros_like(self.flat)
        sizes = [parameter.numel() for parameter in parameters]
        values, gradients = self.flat.data.split(sizes), self.flat.grad.split(sizes)
        for parameter, value, gradient in zip(parameters, values, gradients, strict=True):
            parameter.data, parameter.grad = _shape_as(parameter, value), _shape_as(parameter, gradient)
        self.table_size = sum(sizes[: len(tables)])

    def joint_rows(self, rows: Sequence[Tensor]) -> Tensor:
        """The rows of the joint table (n, tables) for the rows of each table (n,)."""
        return torch.stack([of_table + start for of_table, start in zip(rows, self.starts, strict=True)], dim=1)

    def rows_of(self, vector: Tensor) -> Tensor:
        """The joint table in `flat`, or in another vector of its length, as a view: (rows, dim)."""
        return vector[: self.table_size].view(-1, self.dim)

    def others_of(self, vector: Tensor) -> Tensor:
        """What isn't the table, as a view."""
        return vector[self.table_size :]

    def look_up(self, rows: Tensor) -> Tensor:
        """The vectors of the joint table's rows (batch, tables), side by side: (batch, tables * dim)."""
        return self.rows_of(self.flat.data).index_select(0, rows.flatten()).view(len(rows), -1)

    def add_rows(self, rows: Tensor, gradient: Tensor) -> None:
        """Add the gradient of looked-up vectors (batch, tables * dim) to the rows that they came from."""
        self.rows_of(gradient_of(self.flat)).index_add_(0, rows.flatten(), gradient.view(-1, self.dim))

    def clear_gradient(self, rows: Tensor) -> None:
        """Set the tables' gradient to zero again after a step that looked up these rows: all others' already is."""
        self.rows_of(gradient_of(self.flat)).index_fill_(0, rows.flatten(), 0)


def gradient_of(tensor: Tensor) -> Tensor:
    """Where a parameter's gradient is kept."""
    assert tensor.grad is not None
    return tensor.grad


def _in_memory_order(parameter: Tensor) -> Tensor:
    return parameter if parameter.is_contiguous() else parameter.T


def _shape_as(parameter: Tensor, values: Tensor) -> Tensor:
    """The values, in the parameter's shape and its order in memory."""
    return values.view(parameter.shape) if parameter.is_contiguous() else values.view(parameter.shape[::-1]).T
