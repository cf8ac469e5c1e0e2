"""Recommendations: the forward pass equals the frameworks', lists are right, and what is wrong is said."""

import csv
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from recommend.library import Library, read_library
from recommend.lists import nearest, recommend, recommend_all
from recommend.network import NAMES, WEIGHTS, Floats, Network, read_network
from recommend.page import make_page
from recommend.readers import Reader, read_reader
from recommend.titles import Title, read_titles
from recommend.worth import COUNT, fill, judge, pairs_in_order
from stages import train_baselines
from stages.program.errors import StageError
from stages.program.params import Params, TitleColumns, load_params
from stages.ratings.table import Ratings, read_ratings, write_ratings, write_table
from stages.training.fit import run_training
from tests.project import ROOT
from tests.samples import GOODBOOKS, change, needs_goodbooks

SCALE = [1.0, 5.0]
FRAMEWORKS = [*WEIGHTS]


def train_project(folder: Path, params: Params, parts: tuple[Ratings, Ratings, Ratings], keys: list[str]) -> Path:
    """A project after `dvc repro`, as far as recommendations need it; its ids aren't its numbers."""
    from stages.train_keras import KerasTrainer
    from stages.train_torch import TorchTrainer

    for name in ("data", "models", "losses"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "settings.json").write_text(params.model_dump_json())
    train, validation, test = (folder / "data" / f"{name}.parquet" for name in ("train", "validation", "test"))
    for part, path in zip(parts, (train, validation, test), strict=True):
        write_ratings(part, path)
    users, books, stars = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "books", "stars")
    )
    order = np.lexsort((books, users))
    write_ratings(Ratings(users[order], books[order], stars[order]), folder / "data" / "ratings.parquet")
    write_table(pa.table({"user_id": 1000 + 10 * np.arange(parts[0].user_count)}), folder / "data" / "users.parquet")
    write_table(
        pa.table({"book_id": [f"b{number:03}" for number in range(parts[0].book_count)]}),
        folder / "data" / "books.parquet",
    )
    trainers: dict[str, Any] = {"pytorch": TorchTrainer, "keras": KerasTrainer}
    losses = folder / "losses"
    for key in keys:
        weights = folder / "models" / WEIGHTS[key]
        run_training(
            trainers[key],
            load_params(folder / "settings.json"),
            train,
            validation,
            test,
            weights,
            losses / f"{key}.json",
        )
    train_baselines.main(train, validation, test, losses / "biases.json", losses / "global-mean.json")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, params: Params, parts: tuple[Ratings, Ratings, Ratings]) -> Path:
    """Not to be changed."""
    train = {"epochs": 6, "batch_size": 16, "learning_rate": 0.01}
    settings = change(params, train=train, model={"output_bias": "mean"})
    return train_project(tmp_path_factory.mktemp("trained"), settings, parts, FRAMEWORKS)


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy, to change."""
    return Path(shutil.copytree(trained, tmp_path / "project"))


@pytest.fixture(scope="module")
def titles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Titles of all 40 books; two share theirs, one is an attempt on a page."""
    path = tmp_path_factory.mktemp("titles") / "books.csv"
    names = {7: "The Hobbit", 8: "Dune (Dune, #1)", 9: "Emma", 10: "Emma", 11: "<script>alert(1)</script>"}
    rows = [[f"b{number:03}", names.get(number, f"Book {number}"), f"Author {number % 3}"] for number in range(40)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["book_id", "title", "authors"], *rows])
    return path


def ask(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in another process; at most --min-ratings of the tests' few ratings."""
    least = () if "--min-ratings" in arguments else ("--min-ratings", "1")
    return subprocess.run(
        [sys.executable, "-m", "recommend", "--project", project, *arguments, *least],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def refusal(project: Path, *arguments: str) -> str:
    """The one message that a mistake ends with."""
    done = ask(project, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


# --- The forward pass ---

MODELS: dict[str, dict[str, Any]] = {
    "the project's": {},
    "no hidden layer": {"hidden_units": []},
    "one unit": {"hidden_units": [1], "embedding_dim": 1},
    "one layer, from the mean": {"hidden_units": [32], "embedding_dim": 16, "output_bias": "mean"},
    "three layers": {"hidden_units": [16, 8, 4], "embedding_dim": 3},
}


def framework_predictions(key: str, params: Params, parts: tuple[Ratings, ...], weights: Path) -> Floats:
    """What the framework itself predicts for the test rows with the stored weights."""
    books, users = parts[2].books, parts[2].users
    if key == "pytorch":
        import torch
        from safetensors.torch import load_file

        from stages.train_torch import build_model

        model = build_model(params, parts[0])
        model.load_state_dict(load_file(weights))
        with torch.no_grad():
            predictions: Floats = model(torch.tensor(books).long(), torch.tensor(users).long()).numpy()
        return predictions
    from stages.train_keras import KerasTrainer

    keras_model = KerasTrainer(params, parts[0]).model
    keras_model.load_weights(weights)
    return np.asarray(keras_model.predict([books, users], verbose=0))[:, 0]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("key", FRAMEWORKS)
def test_predicts_what_the_framework_predicts(
    key: str,
    model: dict[str, Any],
    precision: str,
    params: Params,
    parts: tuple[Ratings, Ratings, Ratings],
    tmp_path: Path,
) -> None:
    chosen = change(params, model=model, train={"epochs": 1, "precision": precision})
    project = train_project(tmp_path, chosen, parts, [key])
    expected = framework_predictions(key, chosen, parts, project / "models" / WEIGHTS[key])

    network = read_network(key, project, parts[0])

    tolerance = 1e-5 if precision == "float32" else 1e-12
    assert network.book_vectors.dtype == expected.dtype == precision
    np.testing.assert_allclose(network.predict_rows(parts[2]), expected, rtol=0, atol=tolerance)
    by_reader = [
        network.predict(network.user_vectors[user])[book]
        for user, book in zip(parts[2].users, parts[2].books, strict=True)
    ]
    np.testing.assert_allclose(by_reader, expected, rtol=0, atol=tolerance)


def test_biases_predict_what_the_baseline_predicts(trained: Path, parts: tuple[Ratings, ...]) -> None:
    network = read_network("biases", trained, parts[0])
    np.testing.assert_allclose(
        network.predict_rows(parts[2]), train_baselines.fit_biases(parts[0]).predict(parts[2]), rtol=0, atol=1e-12
    )


def test_more_books_than_a_tile_holds(trained: Path, parts: tuple[Ratings, ...]) -> None:
    network = read_network("keras", trained, parts[0])
    many = np.resize(np.arange(40), 2500)
    vector = network.user_vectors[3]
    np.testing.assert_array_equal(network.of_books(many).predict(vector), network.predict(vector)[many])


# --- Lists ---


@pytest.mark.parametrize("key", NAMES)
def test_a_list_is_the_best_of_the_books_not_rated(key: str, trained: Path) -> None:
    library = read_library(trained)
    network = read_network(key, trained, library.train)
    offered = np.flatnonzero(library.counts >= 15)
    assert 0 < len(offered) < 40
    users = np.arange(60)
    lists = [
        books
        for block in recommend_all(network.of_books(offered), users, library.ratings, offered, 6)
        for books in block
    ]
    assert len(lists) == 60
    for user, books in zip(users.tolist(), lists, strict=True):
        stars = network.predict(network.user_vectors[user])
        left = np.setdiff1d(offered, library.rated_by(user).books)
        assert len(books.numbers) == len(set(books.numbers.tolist())) == min(6, len(left))
        assert np.isin(books.numbers, left).all()
        np.testing.assert_allclose(books.scores, np.sort(stars[left])[::-1][:6], rtol=0, atol=2e-6)
        np.testing.assert_allclose(books.scores, stars[books.numbers], rtol=0, atol=2e-6)


@pytest.mark.parametrize("count", [1, 30, 300])
def test_the_best_of_many_books_are_in_order_and_of_equal_ones_the_first(count: int, trained: Path) -> None:
    network = read_network("keras", trained, read_ratings(trained / "data" / "train.parquet"))
    many = np.random.default_rng(3).permutation(np.resize(np.arange(40), 5000))  # 125 of each
    stars = network.predict(network.user_vectors[9])[many]
    rated = np.argsort(-stars, kind="stable")[::7]
    books = recommend(network.of_books(many), network.user_vectors[9], np.sort(rated), np.arange(5000), count)
    stars[rated] = -np.inf
    assert books.numbers.tolist() == np.argsort(-stars, kind="stable")[:count].tolist()


def test_a_reader_of_everything_gets_an_empty_list(trained: Path) -> None:
    library = read_library(trained)
    network = read_network("keras", trained, library.train)
    offered = np.arange(20)
    books = recommend(network.of_books(offered), network.user_vectors[0], np.arange(40), offered, 10)
    assert books.numbers.tolist() == []


def test_nearest_leaves_the_book_itself_out(trained: Path) -> None:
    library = read_library(trained)
    network = read_network("keras", trained, library.train)
    found = nearest(network, 7, np.arange(40), 39)
    assert sorted(found.numbers.tolist()) == [*range(7), *range(8, 40)]
    assert (np.diff(found.scores) >= 0).all()
    distances = np.linalg.norm(network.book_vectors - network.book_vectors[7], axis=1)
    np.testing.assert_allclose(found.scores, distances[found.numbers], rtol=1e-6)


# --- A reader with ratings of their own ---


def test_a_bias_is_fitted_as_the_baseline_fits_it(trained: Path, parts: tuple[Ratings, ...]) -> None:
    network = read_network("biases", trained, parts[0])
    books, stars = np.array([3, 5, 8]), np.array([5.0, 4.0, 1.0])
    biases = train_baselines.fit_biases(parts[0])
    expected = (stars - biases.mean - biases.of_books[books]).sum() / (3 + train_baselines.DAMPING)
    np.testing.assert_allclose(network.fit_reader(books, stars), [expected], rtol=1e-9)


@pytest.mark.parametrize("key", FRAMEWORKS)
def test_a_fitted_vector_is_a_minimum(key: str, trained: Path, parts: tuple[Ratings, ...]) -> None:
    network = read_network(key, trained, parts[0])
    rated = read_library(trained).rated_by(4)
    mean, precision = network.prior

    def objective(vector: Floats) -> float:
        errors = network.predict(vector)[rated.books] - rated.stars
        return float((errors**2).sum() + (vector - mean) @ precision @ (vector - mean))

    fitted = network.fit_reader(rated.books, rated.stars).astype(np.float64)
    least = objective(fitted)
    assert least < objective(mean)
    spread = network.user_vectors.std(axis=0)
    for step in np.random.default_rng(1).standard_normal((50, len(mean))) * 0.05 * spread:
        assert objective(fitted + step) > 0.999 * least  # the network has kinks, and a step may end at one


@pytest.mark.parametrize("key", FRAMEWORKS)
def test_a_fitted_reader_likes_what_they_rated_high(key: str, trained: Path, parts: tuple[Ratings, ...]) -> None:
    network = read_network(key, trained, parts[0])
    books = np.arange(30)
    generous, strict = (network.predict(network.fit_reader(books, np.full(30, stars))) for stars in (5.0, 2.0))
    assert generous.mean() > strict.mean() + 0.1


RATED: dict[str, str] = {
    "a header": "book,stars\nb007,5\nb008,2\n",
    "no header, titles": "The Hobbit,5\ndune,2.0\n",
    "other columns": 'stars,note,book_id\n5,"a, b",b007\n2,,b008\n',
    "a later rating counts": "b007,1\nb008,2\nb007,5\n",
    "a Goodreads export": (
        'Book Id,Title,Author,My Rating\n5907,The Hobbit,J.R.R. Tolkien,5\n234225,"Dune (Dune, #1)",Frank Herbert,2\n'
        "1,Unread,Nobody,0\n"
    ),
}


@pytest.mark.parametrize("text", RATED.values(), ids=RATED)
def test_reads_a_readers_own_ratings(text: str, trained: Path, titles: Path, tmp_path: Path) -> None:
    reader, unknown = read_reader(write(tmp_path / "mine.csv", text), with_titles(trained, titles), SCALE)
    assert dict(zip(reader.books.tolist(), reader.stars.tolist(), strict=True)) == {7: 5.0, 8: 2.0}
    assert unknown == []


WRONG_RATED: dict[str, tuple[str, str]] = {
    "off the scale": ("b007,5\nb008,6\n", "line 2: '6' is no rating from 1 to 5"),
    "no number": ("book,stars\nb007,good\n", "line 2: 'good' is no rating"),
    "NaN": ("b007,nan\n", "line 1: 'nan' is no rating"),
    "one column": ("b007\nb008\n", "line 1: it should hold a book and its stars"),
    "other columns": ("title,review\nEmma,good\n", "has columns title, review; it needs book (or title) and stars"),
    "unknown books": ("x,5\ny,3\n", "rates no book of these ratings; unknown: 'x'"),
    "nothing": ("", "rates no book of these ratings"),
}


@pytest.mark.parametrize(("text", "message"), WRONG_RATED.values(), ids=WRONG_RATED)
def test_refuses_a_readers_own_ratings(text: str, message: str, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        read_reader(write(tmp_path / "mine.csv", text), read_library(trained), SCALE)
    assert message in str(caught.value)


# --- Titles ---


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def with_titles(project: Path, titles: Path) -> Library:
    library = read_library(project)
    return Library(
        library.user_ids,
        library.book_ids,
        library.ratings,
        library.train,
        read_titles(titles, library.book_ids.to_pylist()),
    )


TITLES: dict[str, str] = {
    "goodbooks-10k, first version": 'id,book_id,authors,original_title,title\n1,2,A,x,One\n2,77,"B, C",y,Two\n',
    "ids of another kind, one of them the same": 'book_id,id,authors,title\n2,1,A,One\n77,2,"B, C",Two\n',
    "goodbooks-10k, second version": 'book_id,goodreads_book_id,authors,title\n1,2,A,One\n2,77,"B, C",Two\n',
    "a Goodreads export": 'Book Id,Title,Author,ISBN\n1,One,A,"=""0439023483"""\n2,Two,"B, C","="""""\n',
    "JSON lines": '{"id": "1", "title": "One", "authors": ["A"]}\n{"id": 2, "title": "Two", "authors": "B, C"}\n',
    "a byte order mark, Windows lines": '\ufeffid,title,author\r\n1,One,A\r\n2,Two,"B, C"\r\n',
    "control characters": 'id,title,author\n1,\x1b One,A\n2,Two,"B,\x07 C"\n',
    "ids as pandas writes them beside gaps": 'id,title,author\n1.0,One,A\n2.0,Two,"B, C"\n,Three,D\n',
}


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("text", TITLES.values(), ids=TITLES)
def test_finds_titles(text: str, compressed: bool, tmp_path: Path) -> None:
    content = text.encode()
    path = tmp_path / "titles"
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert read_titles(path, ["1", "2"]) == {0: Title("One", "A"), 1: Title("Two", "B, C")}


def test_takes_authors_that_are_ids_for_none(tmp_path: Path) -> None:
    text = '{"book_id": "1", "title": "One", "authors": [{"author_id": "9", "role": ""}]}\n'
    assert read_titles(write(tmp_path / "ucsd", text), ["1"]) == {0: Title("One")}


def test_takes_columns_by_the_names_that_are_given(tmp_path: Path) -> None:
    path = write(tmp_path / "titles", "nummer,titel,title\n1,Eins,One\n")
    assert read_titles(path, ["1"], TitleColumns(book="nummer", title="titel")) == {0: Title("Eins")}
    with pytest.raises(StageError, match=r"no column 'titeln'.*did you mean 'titel'"):
        read_titles(path, ["1"], TitleColumns(book="nummer", title="titeln"))


WRONG_TITLES: dict[str, tuple[bytes, str]] = {
    "none of the books": (b"id,title\n7,Seven\n", "has a title for none of the 2 books; looked for ids like '1' in id"),
    "no titles": (b"id,author\n1,A\n", "no column with titles that can be told by its name (there are: id, author)"),
    "no ids": (b"title,author\nOne,A\n", "no column with ids"),
    "empty": (b"", "holds no books"),
    "not UTF-8": (b"id,title\n1,\xff\n", "isn't readable as CSV or JSON lines in UTF-8"),
    "broken JSON": (b'{"id": 1, "title"\n', "isn't readable as CSV or JSON lines"),
    "JSON that is no book": (b'{"id": 7, "title": "x"}\n3\n', "3 is no book"),
    "cut off": (gzip.compress(b"id,title\n1,One\n" * 1000)[:40], ""),
}


@pytest.mark.parametrize(("content", "message"), WRONG_TITLES.values(), ids=WRONG_TITLES)
def test_refuses_titles(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "titles"
    path.write_bytes(content)
    with pytest.raises(StageError) as caught:
        read_titles(path, ["1", "2"])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@needs_goodbooks
def test_finds_all_titles_of_goodbooks() -> None:
    titles = read_titles(GOODBOOKS.parent / "books.csv", [str(number) for number in range(1, 10_001)])
    assert len(titles) == 10_000
    assert titles[0] == Title("The Hunger Games (The Hunger Games, #1)", "Suzanne Collins")


FOUND = {"b007": 7, "the hobbit": 7, "Hobbit": 7, "DUNE": 8, "Dune (Dune, #1)": 8, "Book 12": 12}
NOT_FOUND: dict[str, str] = {
    "emma": "2 books are called 'emma'; name one by its id: b009 Emma — Author 0; b010 Emma — Author 1",
    "The Hobit": "no book 'The Hobit'; the nearest: b007 The Hobbit — Author 1",
    "obbit": "no book 'obbit'; the nearest: b007 The Hobbit",
    "qqqqqq": "no book 'qqqqqq'; nor one spelt alike",
}


def test_finds_a_book_by_id_or_title(trained: Path, titles: Path) -> None:
    library = with_titles(trained, titles)
    assert {wanted: library.find_book(wanted) for wanted in FOUND} == FOUND


@pytest.mark.parametrize(("wanted", "message"), NOT_FOUND.items())
def test_offers_the_nearest_books(wanted: str, message: str, trained: Path, titles: Path) -> None:
    with pytest.raises(StageError) as caught:
        with_titles(trained, titles).find_book(wanted)
    assert str(caught.value).startswith(message)


# --- The command ---


def test_answers_without_a_framework(trained: Path) -> None:
    code = (
        "import sys\nfrom recommend.__main__ import main\n"
        "for key in ('pytorch', 'keras', 'biases'):\n"
        "    sys.argv[-1] = key\n    main()\n"
        "loaded = {'torch', 'tensorflow', 'keras', 'jax', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "--project",
        str(trained),
        "--user",
        "1040",
        "--min-ratings",
        "1",
        "--model",
        "",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Books for reader 1040") == 3


def test_says_which_model_it_asked_and_takes_the_best(trained: Path) -> None:
    losses = {key: json.loads((trained / "losses" / f"{key}.json").read_text())["val_loss"] for key in NAMES}
    best = min(losses, key=losses.__getitem__)
    heading = ask(trained, "--user", "1040").stdout.splitlines()[0]
    assert heading.endswith(f"by {NAMES[best]} (validation loss {losses[best]:.4f})")


def test_files_of_every_kind_hold_the_same(trained: Path, titles: Path, tmp_path: Path) -> None:
    tables = []
    for suffix in (".csv", ".json", ".parquet"):
        path = tmp_path / f"list{suffix}"
        done = ask(trained, "--all", "--titles", str(titles), "--model", "keras", "--count", "3", "--output", str(path))
        assert done.returncode == 0, done.stderr
        rows = (
            list(csv.DictReader(path.read_text().splitlines())) if suffix == ".csv"
            else json.loads(path.read_text()) if suffix == ".json" else pq.read_table(path).to_pylist()
        )  # fmt: skip
        tables.append([[str(row[name]) for name in ("reader", "rank", "book", "title", "ratings")] for row in rows])
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0]) == 180
    assert {row[0] for row in tables[0]} == {str(1000 + 10 * user) for user in range(60)}


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_an_empty_list_is_a_file_too(suffix: str, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / f"list{suffix}"
    everything = write(tmp_path / "mine.csv", "".join(f"b{number:03},3\n" for number in range(40)))
    assert ask(trained, "--rated", str(everything), "--output", str(path)).returncode == 0
    if suffix == ".json":
        assert json.loads(path.read_text()) == []
    elif suffix == ".csv":
        assert len(path.read_text().splitlines()) == 1
    else:
        assert pq.read_table(path).num_rows == 0


def test_many_readers_lists_are_each_ones_own(trained: Path, tmp_path: Path) -> None:
    wanted = write(tmp_path / "readers.txt", "1590\n\n1000\n")
    many, one = tmp_path / "many.json", tmp_path / "one.json"
    assert ask(trained, "--users", str(wanted), "--model", "pytorch", "--output", str(many)).returncode == 0
    assert ask(trained, "--user", "1000", "--model", "pytorch", "--output", str(one)).returncode == 0
    rows = json.loads(many.read_text())
    assert [row["reader"] for row in rows] == [1590] * 10 + [1000] * 10
    assert [{**row} for row in rows[10:]] == [{"reader": 1000, **row} for row in json.loads(one.read_text())]


def test_why_names_the_nearest_rated_books(trained: Path, titles: Path) -> None:
    library = with_titles(trained, titles)
    network = read_network("keras", trained, library.train)
    done = ask(trained, "--user", "1040", "--model", "keras", "--why", "--count", "1", "--titles", str(titles))
    *_, line, reasons = done.stdout.splitlines()
    book = next(number for number in range(40) if line.endswith(library.name(number)))
    rated = library.rated_by(4)
    first = nearest(network, book, rated.books, 1).numbers[0]
    stars = rated.stars[rated.books == first][0]
    assert reasons.strip().startswith(f"near {library.name(first)} ({stars:g})")


def test_offers_books_with_enough_ratings_only(trained: Path) -> None:
    library = read_library(trained)
    done = ask(trained, "--user", "1040", "--min-ratings", "30", "--count", "40")
    listed = done.stdout.splitlines()[3:]
    assert len(listed) == int(
        (library.counts >= 30).sum() - np.isin(library.rated_by(4).books, np.flatnonzero(library.counts >= 30)).sum()
    )
    assert all(int(line.split()[2]) >= 30 for line in listed)


def test_titles_come_from_the_parameters(project: Path, titles: Path) -> None:
    shutil.copy(titles, project / "data" / "books.csv")
    path = project / "params.yaml"
    text = path.read_text()
    assert text.count("  titles: null") == 1
    path.write_text(text.replace("  titles: null", "  titles: data/books.csv"))
    assert "Books like The Hobbit — Author 1, by" in ask(project, "--like", "The Hobbit").stdout
    path.write_text(text[: text.index("recommend:")])  # as before there was this section
    assert "Books like book b007, by" in ask(project, "--like", "b007").stdout


def test_says_how_many_titles_are_missing(trained: Path, tmp_path: Path) -> None:
    titles = write(tmp_path / "few.csv", "id,title\nb001,One\nb002,Two\n")
    done = ask(trained, "--user", "1040", "--titles", str(titles))
    assert done.returncode == 0
    assert f"{titles} has titles for 2 of the 40 books" in done.stderr


# --- The page ---


def test_a_page_holds_text_as_text(trained: Path, titles: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = ask(trained, "--user", "1040", "--titles", str(titles), "--count", "40", "--html", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "http" not in text  # nothing from elsewhere
    assert "PyTorch" in text
    assert "Keras" in text


def test_a_page_marks_what_the_networks_agree_on(trained: Path) -> None:
    library = read_library(trained)
    networks = [read_network(key, trained, library.train) for key in FRAMEWORKS]
    rated = library.rated_by(4)
    reader = Reader("<b>me</b>", rated.books, rated.stars, 4)
    offered = np.arange(40)
    lists = [
        (each, recommend(each.of_books(offered), reader.vector(each), rated.books, offered, 8)) for each in networks
    ]
    agreed = set(lists[0][1].numbers.tolist()) & set(lists[1][1].numbers.tolist())
    page = make_page(library, reader, lists, SCALE)
    assert page.count('class="both"') == 2 * len(agreed) > 0
    assert "<b>me</b>" not in page


# --- What is wrong ---


def test_names_the_nearest_readers(trained: Path, project: Path) -> None:
    assert "no reader '1041' in these ratings; the nearest ids: 1030, 1040, 1050" in refusal(trained, "--user", "1041")
    assert "the nearest ids: " in refusal(trained, "--user", "../../etc")
    write_table(pa.table({"user_id": [f"anna{number:02}" for number in range(60)]}), project / "data" / "users.parquet")
    assert "no reader 'ana07'" in (said := refusal(project, "--user", "ana07"))
    assert "anna07" in said
    assert "Books for reader anna07" in ask(project, "--user", "anna07").stdout


def test_says_that_biases_have_no_vectors(trained: Path) -> None:
    assert "--model pytorch or keras" in refusal(trained, "--like", "b007", "--model", "biases")
    assert "by user and book biases" not in ask(trained, "--user", "1040", "--why").stdout


def test_says_that_no_book_has_so_many_ratings(trained: Path) -> None:
    said = refusal(trained, "--user", "1040", "--min-ratings", "5000")
    assert "no book has 5,000 ratings to train on, the most is " in said
    assert "--min-ratings" in said


def spoil_pytorch(project: Path, change: Any) -> None:
    path = project / "models" / "pytorch.safetensors"
    weights = safetensors.numpy.load_file(path)
    change(weights)
    safetensors.numpy.save_file(weights, path)


def plant_nan(weights: dict[str, Any]) -> None:
    weights["user_embedding.weight"][3, 1] = np.nan


def shuffle_readers(weights: dict[str, Any]) -> None:
    weights["user_embedding.weight"] = weights["user_embedding.weight"][::-1].copy()
    weights["book_embedding.weight"] = weights["book_embedding.weight"][::-1].copy()


SPOILED: dict[str, tuple[Any, str]] = {
    "missing": (lambda project: (project / "models/pytorch.safetensors").unlink(), "is missing; run: dvc repro"),
    "cut off": (lambda project: cut(project / "models/pytorch.safetensors"), "is damaged or holds other weights"),
    "NaN": (lambda project: spoil_pytorch(project, plant_nan), "1 of its numbers are NaN or infinite"),
    "another model's": (
        lambda project: spoil_pytorch(project, lambda weights: weights.pop("dense.2.bias")),
        "holds other weights than a recommender's",
    ),
    "fewer readers": (
        lambda project: spoil_pytorch(
            project,
            lambda weights: weights.update({"user_embedding.weight": weights["user_embedding.weight"][:50].copy()}),
        ),
        "knows 50 readers and 40 books, the tables in",
    ),
    "other ratings, as many": (lambda project: spoil_pytorch(project, shuffle_readers), "are not of one run"),
    "no loss": (lambda project: (project / "losses/pytorch.json").write_text("{}"), "holds no val_loss"),
    "no tables": (
        lambda project: (project / "data/users.parquet").unlink(),
        "users.parquet is missing; run: dvc repro",
    ),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED)
def test_refuses_what_does_not_fit(spoil: Any, message: str, project: Path) -> None:
    spoil(project)
    assert message in refusal(project, "--user", "1040", "--model", "pytorch")


def test_refuses_damaged_keras_weights(project: Path) -> None:
    cut(project / "models" / "keras.weights.h5")
    assert "is damaged or holds other weights" in refusal(project, "--user", "1040", "--model", "keras")


USAGE: dict[str, list[str]] = {
    "nobody": [],
    "two at once": ["--user", "1", "--all"],
    "many without a file": ["--all"],
    "a file of another kind": ["--user", "1", "--output", "list.xlsx"],
    "a page about many": ["--all", "--output", "x.csv", "--html", "x.html"],
    "reasons for many": ["--all", "--output", "x.csv", "--why"],
    "no books": ["--user", "1", "--count", "0"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_refuses_a_command_that_makes_no_sense(arguments: list[str], trained: Path) -> None:
    done = ask(trained, *arguments)
    assert done.returncode == 2
    assert "usage: python -m recommend" in done.stderr


# --- What lists are worth ---


def test_hits_and_ndcg_of_lists_counted_by_hand() -> None:
    users = np.array([0, 2])
    part = Ratings(np.array([0, 0, 2], np.int32), np.array([11, 12, 3], np.int32), np.array([5, 2, 3], np.float32))
    lists = np.tile(np.arange(20, 20 + COUNT), (2, 1))
    lists[0, 2] = 12
    expected = (1 / np.log2(4)) / (1 + 1 / np.log2(3))
    hits, ndcg = judge(lists, users, part, 0)
    assert (hits, ndcg) == pytest.approx((0.5, expected / 2))
    assert judge(lists, users, part, 4) == (0, 0)


def test_known_books_make_room_for_the_next() -> None:
    known = Ratings(np.array([1, 1], np.int32), np.array([2, 4], np.int32), np.ones(2, np.float32))
    filled = fill(np.array([[2, 0, 4, 3, 1]]), np.array([1]), known)
    assert filled[0, :3].tolist() == [0, 3, 1]
    assert (filled[0, 3:] == -1).all()


def test_pairs_in_order_is_the_share_of_the_readers_pairs(trained: Path, parts: tuple[Ratings, ...]) -> None:
    network: Network = read_network("keras", trained, parts[0])
    part = read_ratings(trained / "data" / "test.parquet")
    predictions = network.predict_rows(part)
    pairs = [
        float(predictions[one] > predictions[other]) + 0.5 * float(predictions[one] == predictions[other])
        for one in range(len(part)) for other in range(len(part))
        if part.users[one] == part.users[other] and part.stars[one] > part.stars[other]
    ]  # fmt: skip
    assert pairs_in_order(network, part) == pytest.approx(np.mean(pairs))
