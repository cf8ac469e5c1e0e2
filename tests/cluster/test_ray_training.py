"""Training on several workers gives the losses of one process, but for rounding."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.program.params import Params
from stages.ratings.table import Ratings
from stages.training.fit import Trained, train_here
from tests.samples import Parts, change

BOUNDS = {"float64": 1e-10, "float32": 1e-5}


class Case(NamedTuple):
    """A training in some number of workers."""

    workers: int
    params: Params


def trainer_of(program: str) -> Any:
    if program == "pytorch":
        from stages.train_torch import TorchTrainer

        return TorchTrainer
    from stages.train_keras import KerasTrainer

    return KerasTrainer


def train_one_after_another(
    program: str, cases: list[Case], tables: list[Ratings], rank: int, meetings: list[Any]
) -> list[Trained | None]:
    """One worker's part of all cases, in one process, as Keras takes long to load; without a meeting all."""
    from stages.engines.data_parallel import train_slices

    if not meetings:
        return [train_here(trainer_of(program), case.params, tables) for case in cases]
    return [
        train_slices(trainer_of(program), case.params, tables, rank, meeting, None) if rank < case.workers else None
        for case, meeting in zip(cases, meetings, strict=True)
    ]


def train_together_and_alone(
    ray: Any, program: str, cases: list[Case], tables: list[Ratings]
) -> tuple[list[Trained], list[Trained]]:
    from stages.engines.data_parallel import Meeting

    meetings = [ray.remote(Meeting).options(num_cpus=0).remote() for _ in cases]
    start = ray.remote(max_calls=1, max_retries=0)(train_one_after_another)
    workers = max(case.workers for case in cases)
    together = ray.get([start.remote(program, cases, tables, rank, meetings) for rank in range(workers)])
    return together[0], ray.get(start.remote(program, cases, tables, 0, []))


def losses(trained: Trained) -> NDArray[np.float64]:
    curve = [loss for epoch in trained.curve.epochs for loss in (epoch.train_loss, epoch.val_loss)]
    return np.array([*curve, trained.test_loss])


def all_cases(params: Params, rows: int) -> Iterator[Case]:
    """Every setting of Adam's conventions with two workers; other numbers of workers with the setting that matters."""
    uneven = next(size for size in range(25, 90) if size % 4 and rows % size in (1, 2, 3))  # rows for not all of four

    def case(workers: int, batch_size: int, precision: str, **conventions: str) -> Case:
        train = {"epochs": 3, "batch_size": batch_size, "precision": precision}
        return Case(workers, change(params, train=train, conventions=conventions, ray={"workers": workers}))

    for epsilon, betas, repeated in itertools.product(["torch", "keras"], repeat=3):
        yield case(2, uneven, "float64", adam_epsilon=epsilon, adam_betas=betas, repeated_rows=repeated)
    yield case(2, uneven, "float64", embedding_init="torch", dense_init="keras", bias_init="torch")
    yield case(2, uneven, "float32")
    for workers, precision in itertools.product([1, 4], BOUNDS):
        yield case(workers, uneven, precision)
    yield case(4, 4, "float64")  # a row for each


@pytest.mark.parametrize("program", ["pytorch", "keras-tensorflow", "keras-torch"])
def test_the_number_of_workers_changes_nothing_but_rounding(
    program: str, ray: Any, on_ray: Params, parts: Parts
) -> None:
    backend = {"keras": {"backend": "torch" if program == "keras-torch" else "tensorflow"}}
    cases = [*all_cases(change(on_ray, **backend), len(parts[0]))]

    together, alone = train_together_and_alone(ray, program, cases, list(parts))

    differences = {
        case: np.abs(losses(one) - losses(other)).max()
        for case, one, other in zip(map(name, cases), together, alone, strict=True)
    }
    print(program, differences)
    assert all(len(trained.curve.epochs) == 3 for trained in together)
    assert all(difference < BOUNDS[case[1]] for case, difference in differences.items())


def name(case: Case) -> tuple[int, str, Any]:
    return case.workers, case.params.train.precision, tuple(case.params.conventions)


def test_the_average_of_the_epochs_is_the_same_too(ray: Any, on_ray: Params, parts: Parts) -> None:
    train = {"epochs": 3, "average_epochs": True, "precision": "float64"}
    case = Case(2, change(on_ray, train=train, ray={"workers": 2}))

    together, alone = train_together_and_alone(ray, "pytorch", [case], list(parts))

    assert np.abs(losses(together[0]) - losses(alone[0])).max() < BOUNDS["float64"]
