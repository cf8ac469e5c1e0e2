"""train-torch: the recommender in PyTorch."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm import tqdm

from stages.training.batches import EVALUATION_BATCH, check_batch_size, shuffle_rows
from stages.training.conventions import resolve_adam
from stages.training.conventions.torch_adam import Adam, make_adam
from stages.training.conventions.weights import InitialWeights, draw_initial_weights
from stages.engines.dense_gradients import backpropagate
from stages.program.files import write_bytes
from stages.engines.flat_parameters import FlatParameters
from stages.training.losses import LossCurve, average_batches, write_curve
from stages.program.params import Model, Params, load_params
from stages.program.process import StageError, run_stage
from stages.ratings.table import Ratings, read_ratings


class Recommender(nn.Module):
    """Predicts a user's rating of a book from one learned vector of each."""

    def __init__(self, model: Model, user_count: int, book_count: int) -> None:
        super().__init__()
        self.book_embedding = nn.Embedding(book_count, model.embedding_dim)
        self.user_embedding = nn.Embedding(user_count, model.embedding_dim)
        widths = [2 * model.embedding_dim, *model.hidden_units, 1]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [linear_by_columns(fan_in, fan_out), nn.ReLU()]
        self.dense = nn.Sequential(*layers[:-1])  # `backpropagate` goes through the same layers: change both

    @property
    def layers(self) -> list[nn.Linear]:
        """The dense layers, the last of which gives the stars."""
        return [layer for layer in self.dense if isinstance(layer, nn.Linear)]

    def forward(self, books: Tensor, users: Tensor) -> Tensor:
        """Predicted stars (batch,) for book numbers (batch,) and user numbers (batch,)."""
        stars: Tensor = self.dense(torch.cat([self.book_embedding(books), self.user_embedding(users)], dim=1))
        return stars.squeeze(1)


def linear_by_columns(fan_in: int, fan_out: int) -> nn.Linear:
    """A linear layer whose weight lies column after column in memory.

    It computes the same; for few inputs MKL's products in the backward pass are up to six times faster that way.
    """
    layer = nn.Linear(fan_in, fan_out)
    layer.weight.data = layer.weight.data.T.contiguous().T
    return layer


def build_model(params: Params, training: Ratings) -> Recommender:
    """The untrained network, with the initial weights that the conventions ask for."""
    torch.manual_seed(params.train.seed)
    model = Recommender(params.model, training.user_count, training.book_count)
    model.to(getattr(torch, params.train.precision))
    start_from(model, draw_initial_weights(params, training.user_count, training.book_count))
    if params.model.output_bias == "mean":
        nn.init.constant_(model.layers[-1].bias, training.mean)
    return model


@torch.no_grad()
def start_from(model: Recommender, weights: InitialWeights) -> None:
    """Take over the weights that are given; PyTorch keeps a kernel as (fan_out, fan_in)."""
    if weights.book_embedding is not None:
        model.book_embedding.weight.copy_(torch.from_numpy(weights.book_embedding))
    if weights.user_embedding is not None:
        model.user_embedding.weight.copy_(torch.from_numpy(weights.user_embedding))
    for layer, kernel in zip(model.layers, weights.kernels or [], strict=False):
        layer.weight.copy_(torch.from_numpy(kernel.T))
    for layer, bias in zip(model.layers, weights.biases or [], strict=False):
        layer.bias.copy_(torch.from_numpy(bias))


@dataclass(frozen=True)
class Tensors:
    """Ratings on the device that trains: books, users and stars, each (n,)."""

    books: Tensor
    users: Tensor
    stars: Tensor

    @classmethod
    def of(cls, ratings: Ratings, model: Recommender) -> "Tensors":
        """The ratings where the model is, in its precision."""
        weight = model.book_embedding.weight
        books, users = (torch.tensor(column, device=weight.device).long() for column in (ratings.books, ratings.users))
        return cls(books, users, torch.tensor(ratings.stars, device=weight.device, dtype=weight.dtype))

    def __len__(self) -> int:
        return len(self.stars)


def train_one_epoch(
    model: Recommender,
    parameters: FlatParameters,
    optimizer: Adam,
    batches: Sequence[tuple[Tensor, Tensor]],
    epoch: int,
) -> float:
    """Train on each batch once; the mean of the examples' losses as they were then.

    A batch is rows of the joint table (batch, 2) and stars (batch,).
    """
    layers = model.layers
    losses = batches[0][1].new_empty(len(batches))  # small tensors, kept in a list, would leave holes in the memory
    for step, (rows, stars) in enumerate(tqdm(batches, f"epoch {epoch}", leave=False, disable=None)):
        loss, gradient = backpropagate(layers, parameters.look_up(rows), stars)
        optimizer.step(rows, gradient)
        losses[step] = loss
    return average_batches(losses.numpy(force=True), [len(stars) for _, stars in batches], epoch)


@torch.inference_mode()
def evaluate(model: Recommender, data: Tensors) -> float:
    """The mean squared error over all rows."""
    batches = zip(*(column.split(EVALUATION_BATCH) for column in (data.books, data.users, data.stars)), strict=True)
    squares = [mse_loss(model(books, users), stars, reduction="sum").item() for books, users, stars in batches]
    return sum(squares) / len(data)


def train(params: Params, training: Ratings, validation: Ratings) -> tuple[Recommender, LossCurve]:
    """The model with its best epoch's weights, and the loss curve."""
    settings = params.train
    check_batch_size(settings.batch_size, len(training))
    torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)  # Adam's means of rows not seen for long fade into numbers that are slow to compute
    model = build_model(params, training).to(choose_device(params.torch.device))
    parameters = FlatParameters([model.book_embedding, model.user_embedding], [*model.dense.parameters()])
    optimizer = make_adam(
        parameters, settings.learning_rate, resolve_adam(params.conventions, "pytorch", settings.precision)
    )
    training_rows, validation_rows = Tensors.of(training, model), Tensors.of(validation, model)
    table_rows = parameters.joint_rows([training_rows.books, training_rows.users])

    curve, average = LossCurve(), torch.zeros_like(parameters.flat.data)
    for epoch in range(1, settings.epochs + 1):
        order = torch.tensor(shuffle_rows(len(training), settings.seed, epoch), device=table_rows.device)
        # All rows are moved once, so that each batch is a slice.
        shuffled = (table_rows[order], training_rows.stars[order])
        batches = list(zip(*(column.split(settings.batch_size) for column in shuffled), strict=True))
        train_loss = train_one_epoch(model, parameters, optimizer, batches, epoch)
        trained = parameters.flat.detach().clone()
        if settings.average_epochs:
            average += (trained - average) / epoch
            parameters.flat.data.copy_(average)
        if curve.record(train_loss, evaluate(model, validation_rows)):
            best = parameters.flat.detach().clone()
        parameters.flat.data.copy_(trained)
    parameters.flat.data.copy_(best)
    return model, curve


def choose_device(name: str) -> torch.device:
    """The device that `torch.device` names; for `auto` an accelerator if there is one, otherwise the CPU.

    Raises:
        StageError: the device isn't there.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]  # what follows is for PyTorch's developers
        raise StageError(f"params.yaml: torch.device is {name}, which isn't here: {reason}") from error
    return device


def save(model: Recommender) -> bytes:
    """The weights by name, as safetensors."""
    weights = model.state_dict().items()
    return safetensors.torch.save(
        {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in weights}
    )


def main() -> None:
    """Run the stage: arguments, read, do, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="the best epoch's, to write")
    parser.add_argument("--losses", type=Path, required=True, help="the loss curve, to write")
    arguments = parser.parse_args()
    params = load_params(arguments.params)

    training, validation, test = (
        read_ratings(path) for path in (arguments.train, arguments.validation, arguments.test)
    )
    print(f"PyTorch {torch.__version__} on {choose_device(params.torch.device)}", flush=True)
    model, curve = train(params, training, validation)
    test_loss = evaluate(model, Tensors.of(test, model))

    write_bytes(arguments.weights, save(model))
    write_curve(arguments.losses, "pytorch", curve, test_loss)
    print(f"best epoch {curve.best.epoch}: val_loss {curve.best.val_loss:.5f}, test_loss {test_loss:.5f}")


if __name__ == "__main__":
    run_stage(main)
