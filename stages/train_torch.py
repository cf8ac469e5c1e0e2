"""train-torch: the recommender in PyTorch."""

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm import tqdm

from stages.engines.torch import accelerate, configure, share_gradients
from stages.engines.workers import Workers
from stages.program.params import Model, Params
from stages.program.process import run_stage
from stages.ratings.table import Ratings
from stages.training.conventions import AdamConventions, resolve_adam
from stages.training.conventions.torch_adam import AdamByConventions
from stages.training.conventions.weights import InitialWeights, draw_initial_weights
from stages.training.fit import EVALUATION_BATCH, Weights, run_training
from stages.training.losses import average_batches


class Recommender(nn.Module):
    """Predicts a user's rating of a book from one learned vector of each."""

    def __init__(self, user_count: int, book_count: int, size: Model, sparse: bool) -> None:
        super().__init__()
        self.book_embedding = nn.Embedding(book_count, size.embedding_dim, sparse=sparse)
        self.user_embedding = nn.Embedding(user_count, size.embedding_dim, sparse=sparse)
        layers: list[nn.Module] = []
        for fan_in, fan_out in size.layer_shapes:
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.dense = nn.Sequential(*layers[:-1])

    @property
    def layers(self) -> list[nn.Linear]:
        """The dense layers, the last of which gives the stars."""
        return [layer for layer in self.dense if isinstance(layer, nn.Linear)]

    def forward(self, books: Tensor, users: Tensor) -> Tensor:
        """Predicted stars (batch,) for book numbers (batch,) and user numbers (batch,)."""
        vectors = torch.cat([self.book_embedding(books), self.user_embedding(users)], dim=1)
        stars: Tensor = self.dense(vectors).squeeze(1)
        return stars


def build_model(params: Params, training: Ratings) -> Recommender:
    """The untrained network, with the initial weights that the conventions ask for."""
    torch.manual_seed(params.train.seed)
    sparse = adam_conventions(params).repeated_rows == "keras"  # gradients with a row for each look-up
    model = Recommender(training.user_count, training.book_count, params.model, sparse)
    model.to(getattr(torch, params.train.precision))
    set_initial_weights(model, draw_initial_weights(params, training.user_count, training.book_count))
    if params.model.output_bias == "mean":
        nn.init.constant_(model.layers[-1].bias, training.mean)
    return model


@torch.no_grad()
def set_initial_weights(model: Recommender, weights: InitialWeights) -> None:
    """Take over the weights that are given; PyTorch keeps a kernel as (fan_out, fan_in)."""
    if weights.book_embedding is not None:
        model.book_embedding.weight.copy_(torch.from_numpy(weights.book_embedding))
    if weights.user_embedding is not None:
        model.user_embedding.weight.copy_(torch.from_numpy(weights.user_embedding))
    if weights.kernels is not None:
        for layer, kernel in zip(model.layers, weights.kernels, strict=True):
            layer.weight.copy_(torch.from_numpy(kernel.T))
    if weights.biases is not None:
        for layer, bias in zip(model.layers, weights.biases, strict=True):
            layer.bias.copy_(torch.from_numpy(bias))


def adam_conventions(params: Params) -> AdamConventions:
    """Which framework's way each detail of Adam follows, `native` resolved."""
    return resolve_adam(params.conventions, "pytorch", params.train.precision)


class TorchTrainer:
    """The recommender with its optimiser, as `stages.training.fit` trains it."""

    def __init__(self, params: Params, training: Ratings, workers: Workers | None = None) -> None:
        self.device = configure(params)
        self.batch_size = params.train.batch_size
        self.model = build_model(params, training).to(self.device)
        # Under native conventions it is what torch.optim.Adam computes.
        optimizer = AdamByConventions(self.model.parameters(), params.train.learning_rate, adam_conventions(params))
        if workers is None:
            self.optimizer = accelerate(self.model, optimizer)  # the same Adam, faster
        else:
            self.optimizer = share_gradients(self.model, optimizer, workers)  # of several machines

    def describe(self) -> str:
        """The framework, its version and the device that trains."""
        return f"PyTorch {torch.__version__} on {self.device}"

    def train_one_epoch(self, rows: Ratings, epoch: int) -> float:
        """Train on each batch once; the mean of the examples' losses as they were then."""
        batches = self.make_batches(rows, self.batch_size)
        self.model.train()
        losses = []  # read after the last step: `.item()` at each one would wait for a GPU
        for books, users, stars in tqdm(batches, f"epoch {epoch}", leave=False, disable=None):
            self.optimizer.zero_grad()
            loss = mse_loss(self.model(books, users), stars)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return average_batches(torch.stack(losses).numpy(force=True), [len(stars) for _, _, stars in batches], epoch)

    @torch.no_grad()
    def evaluate(self, rows: Ratings) -> float:
        """The mean squared error over all rows."""
        batches = self.make_batches(rows, EVALUATION_BATCH)
        self.model.eval()
        squares = [mse_loss(self.model(books, users), stars, reduction="sum").item() for books, users, stars in batches]
        return sum(squares) / len(rows)

    def make_batches(self, rows: Ratings, size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Batches of books, users and stars, each (batch,), on the device that trains: all rows fit there at once."""
        books = torch.tensor(rows.books, dtype=torch.long, device=self.device)
        users = torch.tensor(rows.users, dtype=torch.long, device=self.device)
        stars = torch.tensor(rows.stars, dtype=self.model.book_embedding.weight.dtype, device=self.device)
        return list(zip(books.split(size), users.split(size), stars.split(size), strict=True))

    def get_weights(self) -> Weights:
        """A copy of all weights."""
        return [weight.numpy(force=True).copy() for weight in self.model.parameters()]

    @torch.no_grad()
    def set_weights(self, weights: Weights) -> None:
        """Go on from these weights; the optimiser's state is kept."""
        for parameter, weight in zip(self.model.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(weight))

    def get_optimizer_state(self) -> Weights:
        """A copy of Adam's step counts and running means."""
        return [part.numpy(force=True).copy() for state in self.optimizer.states for part in state.memory]

    def set_optimizer_state(self, state: Weights) -> None:
        """Go on from what `get_optimizer_state` gave."""
        parts = [part for state in self.optimizer.states for part in state.memory]
        for part, value in zip(parts, state, strict=True):
            part.copy_(torch.from_numpy(value))

    def save(self) -> bytes:
        """The weights by name, as safetensors."""
        weights = {name: weight.contiguous().clone() for name, weight in self.model.state_dict().items()}
        return safetensors.torch.save(weights)  # which refuses views, as the fast engine's weights are


def main(params: Params, train: Path, validation: Path, test: Path, weights: Path, losses: Path) -> None:
    """Run the stage."""
    run_training(TorchTrainer, params, train, validation, test, weights, losses)


if __name__ == "__main__":
    run_stage(main)
