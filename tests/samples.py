"""Ratings and parameters for tests."""

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from stages.program.params import Params, Split
from stages.ratings.table import Ratings
from stages.split import Pieces, assign_parts
from tests.project import ROOT

GOODBOOKS = ROOT.parent / "shared" / "goodbooks-10k" / "ratings.csv"

quick = settings(
    deadline=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
"""How Hypothesis tries examples: the same ones each time."""

needs_goodbooks = pytest.mark.skipif(not GOODBOOKS.exists(), reason="goodbooks-10k is not beside the project")


Parts = tuple[Ratings, Ratings, Ratings]
"""What is trained on, what validates, what tests."""


def change(params: Params, **sections: object) -> Params:
    """Parameters with some of a section's settings changed: change(params, train={"epochs": 1})."""
    changed = params.model_dump()
    for section, values in sections.items():
        changed[section].update(values)
    return Params.model_validate(changed)


def simulate(users: int, books: int, rows: int, seed: int = 0) -> Ratings:
    """Ratings with a bias for each user and book, popular books among them; each pair at most once."""
    random = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, books + 1)
    pairs = np.unique(
        random.integers(0, users, 2 * rows) * books + random.choice(books, 2 * rows, p=popularity / popularity.sum())
    )
    pairs = np.sort(random.permutation(pairs)[:rows])
    of_users, of_books = random.normal(0, 0.5, users), random.normal(0, 0.3, books)
    scores = 3.8 + of_users[pairs // books] + of_books[pairs % books] + random.normal(0, 0.7, len(pairs))
    stars = np.clip(np.rint(scores), 1, 5)
    return Ratings((pairs // books).astype(np.int32), (pairs % books).astype(np.int32), stars.astype(np.float32))


def in_pieces(ratings: Ratings, *cuts: int) -> Pieces:
    """The ratings as `split` holds them, cut before these rows."""
    starts, ends = [0, *cuts], [*cuts, len(ratings)]
    pieces = [ratings[start:end] for start, end in zip(starts, ends, strict=True)]
    return Pieces(pieces, starts, len(ratings), ratings.user_count, ratings.book_count)


def draw_parts(ratings: Ratings, settings: Split) -> tuple[NDArray[np.int8], int]:
    """The part of each row (n,), and how many rows stayed in train."""
    return assign_parts(in_pieces(ratings), settings)
