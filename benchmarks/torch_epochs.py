"""train-torch against the loop that PyTorch's tutorials show."""

from itertools import pairwise
from pathlib import Path

import torch
from stages.engines.flat_parameters import FlatParameters
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.epochs import Epoch, Framework
from benchmarks.epochs import measure as measure_epochs
from benchmarks.measure import Table
from benchmarks.scale import Scale
from stages.program.params import Params
from stages.ratings.table import Ratings
from stages.train_torch import Tensors, build_model, train_one_epoch

# from stages.training.batches import shuffle_rows
from stages.training.conventions import resolve_adam
from stages.training.conventions.torch_adam import make_adam


def measure(scale: Scale, work: Path) -> list[Table]:
    """Both epochs, and their share of what PyTorch's own matrix product reaches."""
    return measure_epochs(FRAMEWORK, scale, work)


def make_epoch(params: Params, known: Ratings, rows: Ratings) -> Epoch:
    """An epoch as `stages.train_torch.train` has it."""
    settings = params.train
    torch.set_num_threads(settings.threads)
    model = build_model(params, known)
    parameters = FlatParameters([model.book_embedding, model.user_embedding], [*model.dense.parameters()])
    optimizer = make_adam(
        parameters, settings.learning_rate, resolve_adam(params.conventions, "pytorch", settings.precision)
    )
    data = Tensors.of(rows, model)
    table_rows = parameters.joint_rows([data.books, data.users])

    def epoch() -> None:
        torch.set_flush_denormal(True)
        order = torch.tensor(shuffle_rows(len(data), settings.seed, 1))
        shuffled = (table_rows[order], data.stars[order])
        batches = list(zip(*(column.split(settings.batch_size) for column in shuffled), strict=True))
        train_one_epoch(model, parameters, optimizer, batches, 1)
        torch.set_flush_denormal(False)

    return epoch


class TutorialModel(nn.Module):
    """The same network, as it would be written first."""

    def __init__(self, params: Params, users: int, books: int) -> None:
        super().__init__()
        self.book_embedding = nn.Embedding(books, params.model.embedding_dim)
        self.user_embedding = nn.Embedding(users, params.model.embedding_dim)
        widths = [2 * params.model.embedding_dim, *params.model.hidden_units]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.dense = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, books: Tensor, users: Tensor) -> Tensor:
        """Predicted stars (batch,)."""
        stars: Tensor = self.dense(torch.cat([self.book_embedding(books), self.user_embedding(users)], dim=1))
        return stars.squeeze(1)


def make_tutorial_epoch(params: Params, known: Ratings, rows: Ratings) -> Epoch:
    """An epoch with a DataLoader, an Adam as it comes, and the loss read at each step."""
    torch.set_num_threads(params.train.threads)
    model = TutorialModel(params, known.user_count, known.book_count)
    optimizer = torch.optim.Adam(model.parameters(), params.train.learning_rate)
    dataset = TensorDataset(torch.tensor(rows.books).long(), torch.tensor(rows.users).long(), torch.tensor(rows.stars))
    loader = DataLoader(dataset, params.train.batch_size, shuffle=True)

    def epoch() -> float:
        total = 0.0
        for books, users, stars in loader:
            optimizer.zero_grad()
            loss = mse_loss(model(books, users), stars)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(stars)
        return total / len(rows)

    return epoch


def make_product(size: int) -> Epoch:
    """PyTorch's own product of two matrices."""
    one, other, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    return lambda: torch.mm(one, other, out=out)


FRAMEWORK = Framework("train-torch", "the DataLoader loop", make_epoch, make_tutorial_epoch, make_product)
