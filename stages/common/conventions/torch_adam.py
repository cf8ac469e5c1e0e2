"""Adam in PyTorch, following the conventions of either framework."""

from collections.abc import Iterable

import numpy as np
import torch

from stages.common.conventions import OWN_ADAM, AdamConventions


def make_adam(
    parameters: Iterable[torch.nn.Parameter], learning_rate: float, conventions: AdamConventions
) -> torch.optim.Optimizer:
    """PyTorch's own Adam where that follows the conventions, otherwise one that does."""
    if conventions == OWN_ADAM["pytorch"]:
        return torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    return ConventionalAdam(parameters, learning_rate, conventions)


class ConventionalAdam(torch.optim.Optimizer):
    """Adam with a choice of where ε goes, how βᵗ is rounded, and what becomes of rows that repeat in a batch.

    For `repeated_rows: keras` embeddings must have been made with `sparse=True`: then a gradient holds one row for each
    look-up, as TensorFlow's IndexedSlices does, and squares can be taken before the rows of one index are summed.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], learning_rate: float, conventions: AdamConventions
    ) -> None:
        super().__init__(parameters, {"lr": learning_rate, "betas": (0.9, 0.999)})
        self.conventions = conventions
        self.steps = 0
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter] = {"m": torch.zeros_like(parameter), "v": torch.zeros_like(parameter)}

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every parameter from its gradient."""
        self.steps += 1
        group = self.param_groups[0]
        beta_1, beta_2 = group["betas"]
        power_1, power_2 = self._powers(beta_1, beta_2)
        for parameter in group["params"]:
            m, v = self.state[parameter]["m"], self.state[parameter]["v"]
            m.mul_(beta_1)
            v.mul_(beta_2)
            gradient = parameter.grad
            if gradient.is_sparse:
                rows, values = gradient._indices()[0], gradient._values()  # uncoalesced: one row for each look-up
                m.index_add_(0, rows, values, alpha=1 - beta_1)
                v.index_add_(0, rows, values.square(), alpha=1 - beta_2)
            else:
                m.add_(gradient, alpha=1 - beta_1)
                v.addcmul_(gradient, gradient, value=1 - beta_2)
            if self.conventions.epsilon == "torch":
                denominator = v.sqrt().div_((1 - power_2) ** 0.5).add_(1e-8)
                parameter.addcdiv_(m, denominator, value=-group["lr"] / (1 - power_1))
            else:
                denominator = v.sqrt().add_(1e-7)
                parameter.addcdiv_(m, denominator, value=-group["lr"] * (1 - power_2) ** 0.5 / (1 - power_1))

    def _powers(self, beta_1: float, beta_2: float) -> tuple[float, float]:
        if self.conventions.betas == "keras":
            beta_1, beta_2 = float(np.float32(beta_1)), float(np.float32(beta_2))
        return beta_1**self.steps, beta_2**self.steps
