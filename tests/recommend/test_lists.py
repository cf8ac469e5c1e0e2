"""Lists hold the best books that a reader hasn't rated; the page marks what two of them share."""

from pathlib import Path

import numpy as np
import pytest

from recommend.library import Library, Reader
from recommend.lists import list_books, nearest, recommend
from recommend.network import NAMES, Network, read_network
from recommend.page import make_page
from tests.recommend.projects import FRAMEWORKS, SCALE

NOBODY = np.zeros(40, np.bool_)


@pytest.mark.parametrize("key", NAMES)
def test_a_list_is_the_best_of_the_books_not_rated(key: str, trained: Path, library: Library) -> None:
    network = read_network(key, trained, library)
    left_out = library.counts < 15
    assert 0 < left_out.sum() < 40
    rows = list_books(library, network, [*map(library.reader, range(60))], left_out, 6, why=False)
    assert min(row["ratings"] for row in rows) >= 15
    for user in range(60):
        stars = network.predict(network.user_vectors[user])
        stars[left_out] = stars[library.reader(user).books] = -np.inf
        best = [book for book in np.argsort(-stars, kind="stable")[:6] if stars[book] > -np.inf]
        of_user = [row for row in rows if row["reader"] == 1000 + 10 * user]
        assert [(row["rank"], row["book"]) for row in of_user] == [*enumerate((f"b{book:03}" for book in best), 1)]
        np.testing.assert_allclose([row["stars"] for row in of_user], stars[best], rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 30, 300, 10**9])
def test_of_equal_books_the_first_count(count: int) -> None:
    values = np.random.default_rng(3).integers(0, 40, 5000).astype(np.float32)
    kernel, none = np.array([[1.0], [0.0]]), (np.zeros(1), np.zeros((1, 1)))
    network = Network("keras", 0, values[:, None], np.zeros((1, 1)), [kernel], [np.zeros(1)], none)
    rated = np.argsort(-values, kind="stable")[::7]
    books = recommend(network, Reader("", rated, values[rated], 0), np.zeros(5000, np.bool_), count)
    left = np.setdiff1d(np.arange(5000), rated)
    assert books.numbers.tolist() == left[np.argsort(-values[left], kind="stable")][:count].tolist()


def test_nearest_leaves_the_book_itself_out(trained: Path, library: Library) -> None:
    network = read_network("keras", trained, library)
    found = nearest(network, 7, np.arange(40), 39)
    assert sorted(found.numbers.tolist()) == [*range(7), *range(8, 40)]
    assert (np.diff(found.scores) >= 0).all()
    distances = np.linalg.norm(network.book_vectors - network.book_vectors[7], axis=1)
    np.testing.assert_allclose(found.scores, distances[found.numbers], rtol=1e-6)


@pytest.mark.parametrize("key", FRAMEWORKS)
def test_a_new_reader_who_rates_high_is_promised_more(key: str, trained: Path, library: Library) -> None:
    network, books = read_network(key, trained, library), np.arange(30)
    generous, strict = (recommend(network, Reader("", books, np.full(30, stars)), NOBODY, 10) for stars in (5.0, 2.0))
    assert generous.scores.mean() > strict.scores.mean() + 0.1


def test_why_names_the_nearest_rated_books(trained: Path, titled: Library) -> None:
    network, readers = read_network("keras", trained, titled), [titled.reader(4), titled.reader(7)]
    for row in list_books(titled, network, readers, NOBODY, 3, why=True):
        rated = readers[[1040, 1070].index(row["reader"])]
        near = nearest(network, int(row["book"][1:]), rated.books, 3).numbers
        stars = {book: rated.stars[rated.books == book][0] for book in near}
        assert row["near"] == "; ".join(f"{titled.name(book)} ({stars[book]:g})" for book in near)


def test_a_page_marks_what_the_networks_agree_on(trained: Path, library: Library) -> None:
    reader = library.reader(4)._replace(name="<b>me</b>")
    networks = [read_network(key, trained, library) for key in FRAMEWORKS]
    lists = [(network, list_books(library, network, [reader], NOBODY, 8, why=False)) for network in networks]
    agreed = set.intersection(*({row["book"] for row in rows} for _, rows in lists))
    page = make_page(library, reader, lists, SCALE)
    assert page.count('class="both"') == 2 * len(agreed) > 0
    assert f"On both lists: {len(agreed)}." in page
    assert "<b>me</b>" not in page
