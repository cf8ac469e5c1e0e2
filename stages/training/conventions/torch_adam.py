"""Adam in PyTorch, following the conventions of either framework."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from stages.training.conventions import AdamConventions

BETA_1, BETA_2 = 0.9, 0.999


@dataclass(frozen=True)
class _State:
    """A parameter and what Adam remembers of it: how many steps it made, and the running means of g and g²."""

    parameter: Tensor
    steps: Tensor
    m: Tensor
    v: Tensor

    @property
    def memory(self) -> tuple[Tensor, Tensor, Tensor]:
        """All that the next step needs of those before."""
        return self.steps, self.m, self.v


class AdamByConventions:
    """Adam with a choice of where ε goes, how βᵗ is rounded, and what becomes of rows that repeat in a batch.

    Where all three are PyTorch's it calls the function that `torch.optim.Adam` is made of: to make one imports
    TorchDynamo, which takes more than a second. `repeated_rows: keras` needs `nn.Embedding(…, sparse=True)`, whose
    gradient holds a row for each look-up.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, conventions: AdamConventions) -> None:
        self.learning_rate = learning_rate
        self.conventions = conventions
        self.states = [
            _State(
                parameter,
                steps=torch.zeros((), device=parameter.device),
                m=torch.zeros_like(parameter),
                v=torch.zeros_like(parameter),
            )
            for parameter in parameters
        ]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for state in self.states:
            state.parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters that have a gradient."""
        states = [state for state in self.states if state.parameter.grad is not None]
        if self.conventions == AdamConventions(epsilon="torch", betas="torch", repeated_rows="torch"):
            self._step_as_pytorch(states)
        else:
            for state in states:
                self._step_by_conventions(state)

    def _step_as_pytorch(self, states: list[_State]) -> None:
        adam(
            [state.parameter for state in states],
            [state.parameter.grad for state in states],  # type: ignore[misc]  # they have one
            exp_avgs=[state.m for state in states],
            exp_avg_sqs=[state.v for state in states],
            max_exp_avg_sqs=[],
            state_steps=[state.steps for state in states],
            fused=True,
            amsgrad=False,
            beta1=BETA_1,
            beta2=BETA_2,
            lr=self.learning_rate,
            weight_decay=0,
            eps=1e-8,
            maximize=False,
        )

    def _step_by_conventions(self, state: _State) -> None:
        parameter, m, v = state.parameter, state.m, state.v
        assert parameter.grad is not None
        gradient = sum_rows(parameter.grad)
        m.mul_(BETA_1).add_(gradient, alpha=1 - BETA_1)
        if self.conventions.repeated_rows == "torch":
            v.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
        else:
            v.mul_(BETA_2).add_(self.sum_squares(parameter.grad), alpha=1 - BETA_2)

        steps = state.steps.add_(1).item()
        beta_1, beta_2 = BETA_1, BETA_2
        if self.conventions.betas == "keras":  # the powers stay in float64: their own rounding is lost in the weights'
            beta_1, beta_2 = float(np.float32(beta_1)), float(np.float32(beta_2))
        step_size = self.learning_rate / (1 - beta_1**steps)
        bias_correction2_sqrt = (1 - beta_2**steps) ** 0.5
        if self.conventions.epsilon == "torch":
            parameter.addcdiv_(m, v.sqrt().div_(bias_correction2_sqrt).add_(1e-8), value=-step_size)
        else:
            parameter.addcdiv_(m, v.sqrt().add_(1e-7), value=-step_size * bias_correction2_sqrt)

    def sum_squares(self, gradient: Tensor) -> Tensor:
        """The squares of a gradient, row by row of a sparse one before those of the same row are added up."""
        return sum_squared_rows(gradient)


def sum_rows(gradient: Tensor) -> Tensor:
    """The gradient as a dense tensor: those of one row's look-ups are added up."""
    return gradient.to_dense() if gradient.is_sparse else gradient


def sum_squared_rows(gradient: Tensor) -> Tensor:
    """The squares of the gradient as a dense tensor: each look-up's gradient is squared before they are added up."""
    if not gradient.is_sparse:
        return gradient.square()
    squares = gradient._values().square()
    return torch.sparse_coo_tensor(gradient._indices(), squares, gradient.shape, check_invariants=False).to_dense()
