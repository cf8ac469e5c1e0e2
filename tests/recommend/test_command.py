"""`python -m recommend`, asked as people ask."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recommend.library import Library
from recommend.network import NAMES
from stages.ratings.table import write_table
from tests.project import ROOT, edit_params, failure, run
from tests.recommend.projects import answer, refusal, write


def test_answers_without_a_framework(trained: Path) -> None:
    code = (
        "import sys\nfrom recommend.__main__ import main\n"
        "for key in ('pytorch', 'keras', 'biases'):\n"
        "    sys.argv[-1] = key\n    main()\n"
        "loaded = {'torch', 'tensorflow', 'keras', 'jax', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    arguments = ["--project", str(trained), "--user", "1040", "--min-ratings", "1", "--model", ""]
    assert run(ROOT, sys.executable, "-c", code, *arguments).stdout.count("Books for reader 1040") == 3


def test_says_which_model_it_asked_and_takes_the_best(trained: Path) -> None:
    losses = {key: json.loads((trained / "losses" / f"{key}.json").read_text())["val_loss"] for key in NAMES}
    best = min(losses, key=losses.__getitem__)
    heading = answer(trained, "--user", "1040").splitlines()[0]
    assert heading.endswith(f"by {NAMES[best]} (validation loss {losses[best]:.4f})")
    assert "by user and book biases" not in answer(trained, "--user", "1040", "--why")  # they have no vectors


def test_files_of_every_kind_hold_the_same(trained: Path, titles: Path, tmp_path: Path) -> None:
    tables = []
    for suffix in (".csv", ".json", ".parquet"):
        path = tmp_path / f"list{suffix}"
        answer(trained, "--all", "--titles", titles, "--model", "keras", "--count", "3", "--why", "--output", path)
        rows = (
            list(csv.DictReader(path.read_text().splitlines())) if suffix == ".csv"
            else json.loads(path.read_text()) if suffix == ".json" else pq.read_table(path).to_pylist()
        )  # fmt: skip
        tables.append([{name: str(value) for name, value in row.items() if name != "stars"} for row in rows])
    assert tables[0] == tables[1] == tables[2]
    assert [*tables[0][0]] == ["reader", "rank", "book", "title", "authors", "ratings", "near"]
    assert [row["reader"] for row in tables[0]] == [str(1000 + 10 * user) for user in range(60) for _ in range(3)]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_an_empty_list_is_a_file_too(suffix: str, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / f"list{suffix}"
    everything = write(tmp_path / "mine.csv", "book,stars\n" + "".join(f"b{number:03},3\n" for number in range(40)))
    answer(trained, "--rated", everything, "--model", "keras", "--why", "--output", path)
    if suffix == ".json":
        assert json.loads(path.read_text()) == []
    else:
        assert (len(path.read_text().splitlines()) - 1 if suffix == ".csv" else pq.read_table(path).num_rows) == 0


def test_many_readers_lists_are_each_ones_own(trained: Path, tmp_path: Path) -> None:
    wanted = write(tmp_path / "readers.txt", "1590\n\n1000\n")
    many, one = tmp_path / "many.json", tmp_path / "one.json"
    answer(trained, "--users", wanted, "--model", "pytorch", "--output", many)
    answer(trained, "--user", "1000", "--model", "pytorch", "--output", one)
    rows = json.loads(many.read_text())
    assert [row["reader"] for row in rows] == [1590] * 10 + [1000] * 10
    assert rows[10:] == [{"reader": 1000, **row} for row in json.loads(one.read_text())]
    assert "names no reader" in refusal(trained, "--users", write(tmp_path / "none.txt", "\n"), "--output", many)
    unknown = write(tmp_path / "unknown.txt", "1590\n\nanna\n")
    assert f"{unknown}, line 3: no reader 'anna'" in refusal(trained, "--users", unknown, "--output", many)


def test_lists_books_with_enough_ratings_only(trained: Path, library: Library) -> None:
    listed = answer(trained, "--user", "1040", "--min-ratings", "30", "--count", "1000000000").splitlines()[3:]
    enough = np.flatnonzero(library.counts >= 30)
    assert len(listed) == len(np.setdiff1d(enough, library.reader(4).books)) > 0
    assert all(int(line.split()[2]) >= 30 for line in listed)
    said = refusal(trained, "--user", "1040", "--min-ratings", "5000")
    assert "no book has 5,000 ratings to train on, the most is " in said


def test_titles_come_from_the_parameters(project: Path, titles: Path) -> None:
    shutil.copy(titles, project / "data" / "books.csv")
    edit_params(project, "  titles: null", "  titles: data/books.csv")
    assert "Books like The Hobbit — Author 1, by" in answer(project, "--like", "The Hobbit")
    (project / "data" / "books.csv").unlink()
    said = refusal(project, "--like", "The Hobbit")
    assert said == f"{project}/params.yaml: recommend.titles is 'data/books.csv'; there is no such file"
    text = (project / "params.yaml").read_text()
    write(project / "params.yaml", text[: text.index("recommend:")])  # as before there was this section
    assert "Books like book b007, by" in answer(project, "--like", "b007")


def test_a_page_holds_text_as_text(trained: Path, titles: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    answer(trained, "--user", "1040", "--titles", titles, "--count", "40", "--html", page)
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "http" not in text  # nothing from elsewhere
    assert ">PyTorch<" in text
    assert ">Keras<" in text


def test_readers_ids_may_be_text(project: Path) -> None:
    write_table(pa.table({"user_id": [f"anna{number:02}" for number in range(60)]}), project / "data" / "users.parquet")
    assert "Books for reader anna07" in answer(project, "--user", "anna07")
    assert "no reader 'anna7' in these ratings; the nearest ids: anna58, anna59" in refusal(project, "--user", "anna7")


USAGE: dict[str, list[str]] = {
    "nobody": [],
    "two at once": ["--user", "1", "--all"],
    "many without a file": ["--all"],
    "a file of another kind": ["--user", "1", "--output", "list.xlsx"],
    "a page about many": ["--all", "--output", "x.csv", "--html", "x.html"],
    "no books": ["--user", "1", "--count", "0"],
    "a file that is not there": ["--rated", "mine.csv"],
    "vectors of biases": ["--like", "b007", "--model", "biases"],
    "reasons without a reader": ["--like", "b007", "--why"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_refuses_a_command_that_makes_no_sense(
    arguments: list[str], trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        answer(trained, *arguments)
    assert caught.value.code == 2
    assert "usage: python -m recommend" in capsys.readouterr().err


def test_a_mistake_ends_with_one_line(trained: Path) -> None:
    said = failure(ROOT, sys.executable, "-m", "recommend", "--project", str(trained), "--user", "nobody")
    assert said.count("\n") == 1
    assert said.startswith("error: no reader 'nobody' in these ratings")
