"""Adam in PyTorch, following the conventions of either framework."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from stages.training.conventions import AdamConventions
from stages.engines.flat_parameters import FlatParameters, gradient_of

BETA_1, BETA_2 = 0.9, 0.999


class Adam(Protocol):
    """An optimiser of flat parameters."""

    def step(self, rows: Tensor, gradient: Tensor) -> None:
        """Update all parameters after a backward pass.

        Args:
            rows: the rows of the joint table that the batch looked up, (batch, tables).
            gradient: of the vectors that came of it, (batch, tables * dim).
        """


def make_adam(parameters: FlatParameters, learning_rate: float, conventions: AdamConventions) -> Adam:
    """PyTorch's own Adam where that follows the conventions, otherwise one that does."""
    if conventions == AdamConventions(epsilon="torch", betas="torch", repeated_rows="torch"):
        return OwnAdam(parameters, learning_rate)
    return ConventionalAdam(parameters, learning_rate, conventions)


class OwnAdam:
    """PyTorch's own Adam, as its class calls it, without what the class does around it at each step."""

    def __init__(self, parameters: FlatParameters, learning_rate: float) -> None:
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.steps = torch.zeros((), dtype=torch.float32, device=parameters.flat.device)  # as the class counts them
        self.m, self.v = torch.zeros_like(parameters.flat.data), torch.zeros_like(parameters.flat.data)

    @torch.no_grad()
    def step(self, rows: Tensor, gradient: Tensor) -> None:
        """Update all parameters, as `Adam` says."""
        flat = self.parameters.flat
        self.parameters.add_rows(rows, gradient)
        adam(
            [flat],
            [gradient_of(flat)],
            exp_avgs=[self.m],
            exp_avg_sqs=[self.v],
            max_exp_avg_sqs=[],
            state_steps=[self.steps],
            fused=True,
            amsgrad=False,
            beta1=BETA_1,
            beta2=BETA_2,
            lr=self.learning_rate,
            weight_decay=0,
            eps=1e-8,
            maximize=False,
        )
        self.parameters.clear_gradient(rows)


class ConventionalAdam:
    """Adam with a choice of where ε goes, how βᵗ is rounded, and what becomes of rows that repeat in a batch."""

    def __init__(self, parameters: FlatParameters, learning_rate: float, conventions: AdamConventions) -> None:
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.conventions = conventions
        self.steps = 0
        self.m, self.v = torch.zeros_like(parameters.flat.data), torch.zeros_like(parameters.flat.data)

    @torch.no_grad()
    def step(self, rows: Tensor, gradient: Tensor) -> None:
        """Update all parameters, as `Adam` says."""
        self.parameters.add_rows(rows, gradient)
        self._update_means(rows, gradient)
        self._update_parameters()
        self.parameters.clear_gradient(rows)

    def _update_means(self, rows: Tensor, gradient: Tensor) -> None:
        parameters, summed = self.parameters, gradient_of(self.parameters.flat)
        self.m.mul_(BETA_1).add_(summed, alpha=1 - BETA_1)
        self.v.mul_(BETA_2)
        if self.conventions.repeated_rows == "torch":
            self.v.addcmul_(summed, summed, value=1 - BETA_2)
        else:
            squares = gradient.square().view(-1, parameters.dim)
            parameters.rows_of(self.v).index_add_(0, rows.flatten(), squares, alpha=1 - BETA_2)
            others = parameters.others_of(summed)
            parameters.others_of(self.v).addcmul_(others, others, value=1 - BETA_2)

    def _update_parameters(self) -> None:
        self.steps += 1
        beta_1, beta_2 = BETA_1, BETA_2
        if self.conventions.betas == "keras":  # the powers stay in float64: their own rounding is lost in the weights'
            beta_1, beta_2 = float(np.float32(beta_1)), float(np.float32(beta_2))
        correction_1, correction_2 = 1 - beta_1**self.steps, 1 - beta_2**self.steps
        flat, size = self.parameters.flat, self.learning_rate / correction_1
        if self.conventions.epsilon == "torch":
            flat.addcdiv_(self.m, self.v.sqrt().div_(correction_2**0.5).add_(1e-8), value=-size)
        else:
            flat.addcdiv_(self.m, self.v.sqrt().add_(1e-7), value=-size * correction_2**0.5)
