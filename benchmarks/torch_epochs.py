"""train-torch against the loop that PyTorch's tutorials show."""

import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.epochs import Epoch, Framework
from stages.program.params import Params
from stages.ratings.table import Ratings
from stages.train_torch import TorchTrainer, build_model


def make_tutorial_epoch(params: Params, known: Ratings, rows: Ratings) -> Epoch:
    """An epoch with a DataLoader, an Adam as it comes, and the loss read at each step."""
    model = build_model(params, known)
    optimizer = torch.optim.Adam(model.parameters(), params.train.learning_rate)
    dataset = TensorDataset(torch.tensor(rows.books).long(), torch.tensor(rows.users).long(), torch.tensor(rows.stars))
    loader = DataLoader(dataset, params.train.batch_size, shuffle=True)

    def epoch() -> float:
        torch.set_flush_denormal(False)  # as PyTorch comes; the trainer has set it for the process
        total = 0.0
        for books, users, stars in loader:
            optimizer.zero_grad()
            loss = mse_loss(model(books, users), stars)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(stars)
        torch.set_flush_denormal(True)
        return total / len(rows)

    return epoch


def make_product(size: int) -> Epoch:
    """PyTorch's own product of two matrices."""
    one, other, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    return lambda: torch.mm(one, other, out=out)


FRAMEWORK = Framework("train-torch", "the DataLoader loop", TorchTrainer, make_tutorial_epoch, make_product)
measure = FRAMEWORK.measure
