"""PyTorch's fast engine: what it knows it trains as plain autograd does, and what it doesn't know it leaves alone."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from stages.engines.torch import accelerate
from stages.program.params import Params
from stages.train_torch import TorchTrainer, build_model
from stages.training.conventions import AdamConventions, own_adam
from stages.training.conventions.torch_adam import AdamByConventions
from tests.samples import change, simulate
from tests.training.adam_reference import ALL_ADAMS

USERS, BOOKS, DIM, LEARNING_RATE = 30, 20, 4, 0.01
RATINGS = simulate(USERS, BOOKS, 200)
OWN = own_adam("pytorch", "float64")

Step = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


class Plain(nn.Module):
    """The recommender, and what people change in it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.books = nn.Embedding(BOOKS, DIM)
        self.users = nn.Embedding(USERS, DIM)
        self.dense = nn.Sequential(*(layers or (nn.Linear(2 * DIM, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())))
        self.last = nn.Linear(8, 1)

    def rate(self, *vectors: Tensor) -> Tensor:
        stars: Tensor = self.last(self.dense(torch.cat([*vectors], dim=1))).squeeze(1)
        return stars

    def forward(self, books: Tensor, users: Tensor) -> Tensor:
        return self.rate(self.books(books), self.users(users))


class ThirdTable(Plain):
    """One more table, side by side with the others."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2 * DIM + 3, 8), nn.ReLU())
        self.moods = nn.Embedding(USERS, 3)

    def forward(self, books: Tensor, users: Tensor) -> Tensor:
        return self.rate(self.books(books), self.users(users), self.moods(users))


class ThreeInputs(ThirdTable):
    def forward(self, books: Tensor, users: Tensor, moods: Tensor | None = None) -> Tensor:
        return self.rate(self.books(books), self.users(users), self.moods(users if moods is None else moods))


def with_forward(forward: Callable[[Any, Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    """The same layers, and a class of their own that puts them together in another way."""
    return type("Changed", (Plain,), {"forward": forward})


class DependsOnValues(Plain):
    def forward(self, books: Tensor, users: Tensor) -> Tensor:
        stars = super().forward(books, users)
        return stars if stars.sum() > 0 else -stars


class PartlyWithoutGradients(Plain):
    """A part that autograd doesn't see, though all its calls are as before."""

    def forward(self, books: Tensor, users: Tensor) -> Tensor:
        with torch.no_grad():
            of_books = self.books(books)
        return self.rate(of_books, self.users(users))


def changed(change_model: Callable[[Plain], object]) -> Callable[[], Plain]:
    def make() -> Plain:
        model = Plain()
        change_model(model)
        return model

    return make


def override_forward(model: Plain) -> None:
    plain_forward = model.forward
    model.forward = lambda books, users: plain_forward(books, users) * 2  # type: ignore[method-assign]


def pad(model: Plain) -> None:
    model.users = nn.Embedding(USERS, DIM, padding_idx=3)


def tied() -> Plain:
    model = Plain(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
    model.dense[2].weight = model.dense[0].weight
    return model


def double_output(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output * 2


def first() -> nn.Linear:
    return nn.Linear(2 * DIM, 8)


KNOWN: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "one hidden layer": lambda: Plain(first(), nn.ReLU()),
    "square weights": lambda: Plain(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()),
}
UNKNOWN: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: Plain(first(), nn.ReLU(), nn.Dropout(0.3)),
    "tanh": lambda: Plain(first(), nn.Tanh()),
    "layer norm": lambda: Plain(first(), nn.LayerNorm(8), nn.ReLU()),
    "no activation": lambda: Plain(first(), nn.Linear(8, 8), nn.ReLU()),
    "a third embedding of one input": ThirdTable,
    "an optional input": ThreeInputs,
    "a shared table": with_forward(lambda model, books, users: model.rate(model.users(books), model.users(users))),
    "a shared layer": with_forward(
        lambda model, books, users: model.rate(model.dense(torch.cat([model.books(books), model.users(users)], dim=1)))
    ),
    "tied weights": tied,
    "another order": with_forward(lambda model, books, users: model.rate(model.users(users), model.books(books))),
    "scaled output": with_forward(lambda model, books, users: Plain.forward(model, books, users) * 2),
    "depends on values": DependsOnValues,
    "frozen": changed(lambda model: model.dense[0].requires_grad_(False)),
    "hooked": changed(lambda model: model.dense[0].register_forward_hook(double_output)),
    "padding": changed(pad),
    "no bias": lambda: Plain(nn.Linear(2 * DIM, 8, bias=False), nn.ReLU()),
    "partly without gradients": PartlyWithoutGradients,
    "overridden": changed(override_forward),
    "a hooked parameter": changed(lambda model: model.last.weight.register_hook(lambda gradient: gradient * 2)),
    "a hooked container": changed(lambda model: model.dense.register_forward_hook(double_output)),
}


def plain_step(model: nn.Module, books: Tensor, users: Tensor, stars: Tensor) -> Tensor:
    return mse_loss(model(books, users), stars)


def train(model: nn.Module, optimizer: AdamByConventions | torch.optim.Optimizer, step: Step = plain_step) -> Tensor:
    """The losses of two epochs, in batches of 32 and a last one of 8."""
    torch.manual_seed(7)
    losses = []
    columns = [torch.from_numpy(column) for column in (RATINGS.books.astype(int), RATINGS.users.astype(int))]
    stars = torch.from_numpy(RATINGS.stars).double()
    for _ in range(2):
        for rows in torch.randperm(len(RATINGS)).split(32):
            optimizer.zero_grad()
            loss = step(model, columns[0][rows], columns[1][rows], stars[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses)


def assert_same_training(make: Callable[[], nn.Module], is_known: bool, step: Step = plain_step) -> None:
    """Hold the engine against the plain module with PyTorch's own optimiser."""
    torch.manual_seed(1)
    model = make().double()
    torch.manual_seed(1)
    plain = make().double()
    given = AdamByConventions(model.parameters(), LEARNING_RATE, OWN)
    optimizer = accelerate(model, given)
    assert (optimizer is not given) == is_known

    found = train(model, optimizer, step)
    expected = train(plain, torch.optim.Adam(plain.parameters(), LEARNING_RATE), step)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("name", KNOWN)
def test_what_the_engine_knows_it_trains_as_plain_autograd(name: str) -> None:
    assert_same_training(KNOWN[name], is_known=True)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_the_engine_does_not_know_it_leaves_alone(name: str) -> None:
    assert_same_training(UNKNOWN[name], is_known=False)


PENALISED = ("users.weight", "last.weight", "user_embedding.weight", "dense.2.weight")


def penalised(model: nn.Module, books: Tensor, users: Tensor, stars: Tensor) -> Tensor:
    penalty = sum(weight.square().sum() for name, weight in model.named_parameters() if name in PENALISED)
    return plain_step(model, books, users, stars) + 0.01 * penalty


def in_two_halves(model: nn.Module, books: Tensor, users: Tensor, stars: Tensor) -> Tensor:
    """Two backward passes, which add up their gradients, before one step."""
    half = len(stars) // 2
    (plain_step(model, books[:half], users[:half], stars[:half]) / 2).backward()
    return plain_step(model, books[half:], users[half:], stars[half:]) / 2


def clipped(model: nn.Module, books: Tensor, users: Tensor, stars: Tensor) -> Tensor:
    """A gradient that is read and changed between the backward pass and the step."""
    plain_step(model, books, users, stars).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    return torch.stack([parameter.sum() for parameter in model.parameters()]).sum() * 0


def cleared_by_the_model(model: nn.Module, books: Tensor, users: Tensor, stars: Tensor) -> Tensor:
    plain_step(model, books, users, stars).backward()
    model.zero_grad()
    return plain_step(model, books, users, stars)


def decayed(model: nn.Module, books: Tensor, users: Tensor, stars: Tensor) -> Tensor:
    """Weight decay added to the gradients by hand, as older optimisers do."""
    plain_step(model, books, users, stars).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.add_(parameter, alpha=0.1)
    return torch.stack([parameter.sum() for parameter in model.parameters()]).sum() * 0


def with_narrow_ids(model: nn.Module, books: Tensor, users: Tensor, stars: Tensor) -> Tensor:
    return plain_step(model, books.int(), users.int(), stars)


def by_name(model: nn.Module, books: Tensor, users: Tensor, stars: Tensor) -> Tensor:
    return mse_loss(model(users=users, books=books), stars)


def partly_detached(model: nn.Module, books: Tensor, users: Tensor, stars: Tensor) -> Tensor:
    with torch.no_grad():
        target = model(books, users)
    return mse_loss(model(books, users), (stars + target) / 2)


STEPS = [
    *(penalised, in_two_halves, clipped, cleared_by_the_model),
    *(decayed, with_narrow_ids, by_name, partly_detached),
]


@pytest.mark.parametrize("step", STEPS)
def test_another_step_around_the_network_is_as_plain(step: Step) -> None:
    assert_same_training(Plain, is_known=True, step=step)


@pytest.mark.parametrize("conventions", ALL_ADAMS, ids=str)
@pytest.mark.parametrize("step", [plain_step, penalised])
def test_the_engine_follows_conventions_as_the_trainer_does_without_it(
    params: Params, conventions: AdamConventions, step: Step
) -> None:
    sides = {"adam_epsilon": conventions.epsilon, "adam_betas": conventions.betas}
    chosen = change(
        params,
        model={"embedding_dim": DIM, "hidden_units": [8]},
        train={"precision": "float64"},
        conventions={**sides, "repeated_rows": conventions.repeated_rows},
    )
    plain = build_model(chosen, RATINGS)
    model = copy.deepcopy(plain)
    fast = accelerate(model, AdamByConventions(model.parameters(), LEARNING_RATE, conventions))

    found = train(model, fast, step)
    expected = train(plain, AdamByConventions(plain.parameters(), LEARNING_RATE, conventions), step)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_trainers_network_is_one_that_the_engine_knows(params: Params) -> None:
    trainer = TorchTrainer(params, RATINGS)

    assert type(trainer.optimizer) is not AdamByConventions
    assert isinstance(trainer.model.dense[0], nn.Linear)


def accelerated() -> Plain:
    model = Plain()
    accelerate(model, AdamByConventions(model.parameters(), LEARNING_RATE, OWN))
    return model


@pytest.mark.parametrize("row", [BOOKS, -1])
def test_an_id_out_of_range_is_no_other_tables_row(row: int) -> None:
    model = accelerated()

    with pytest.raises(IndexError):
        model(torch.tensor([row]), torch.tensor([0]))


def forget_gradient(model: Plain) -> None:
    model.last.weight.grad = None


def replace_values(model: Plain) -> None:
    model.last.weight.data = model.last.weight.data.clone()


def replace_layer(model: Plain) -> None:
    model.dense[1] = nn.Tanh()


CHANGES: dict[str, Callable[[Plain], object]] = {
    "a gradient forgotten": forget_gradient,
    "values replaced": replace_values,
    "a layer replaced": replace_layer,
    "frozen": lambda model: model.dense.requires_grad_(False),
    "another precision": nn.Module.double,
    "a hook": lambda model: model.last.weight.register_hook(lambda gradient: gradient * 2),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_the_engine_would_not_see_is_refused(name: str) -> None:
    model = accelerated()
    CHANGES[name](model)

    with pytest.raises(RuntimeError, match="changed after `accelerate`"):
        model(torch.tensor([0]), torch.tensor([0]))


def test_a_copy_is_a_model_of_its_own() -> None:
    model = accelerated()
    copied = copy.deepcopy(model)
    torch.nn.init.zeros_(copied.last.weight)
    torch.nn.init.zeros_(copied.last.bias)
    ids = torch.tensor([0])

    assert copied(ids, ids).item() == 0
    assert model(ids, ids).item() != 0


def test_an_optimiser_of_some_parameters_is_left_alone() -> None:
    model = Plain()
    given = AdamByConventions(model.dense.parameters(), LEARNING_RATE, OWN)

    assert accelerate(model, given) is given


def test_ids_that_change_before_the_backward_pass_are_refused() -> None:
    model = accelerated()
    books = torch.tensor([0, 1])
    loss = model(books, torch.tensor([0, 1])).sum()
    books.add_(1)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_second_derivative_is_refused() -> None:
    model = accelerated()
    loss = model(torch.tensor([0]), torch.tensor([0])).sum()
    books = model.books.weight

    with pytest.raises(RuntimeError):
        torch.autograd.grad(loss, books, create_graph=True)
    assert books.detach().isfinite().all()
