"""The settings of well-known collections, each on a small made piece of it, and what DVC sees of folders."""

import gzip
import json
import random
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from stages.prepare_ratings import prepare
from stages.program.params import Params, Prepare, load_params
from stages.ratings.source import read_source
from stages.ratings.table import concatenate
from tests.project import ROOT, copy_project, dvc, edit_params, run, stages_run
from tests.samples import draw_parts

USERS, BOOKS = 30, 20
WORDS = ["did not like it", "it was ok", "liked it", "really liked it", "it was amazing"]
CHANCE = random.Random(3)  # noqa: S311, no secret
RATINGS = [
    (user, book, CHANCE.randint(1, 5)) for user in range(USERS) for book in range(BOOKS) if CHANCE.random() < 0.6
]
"""Who rated what, with 1 to 5 stars."""


def isbn(book: int) -> str:
    return f"{book:09}X"


def table(row: Callable[[int, int, int], str], header: str = "", extra: str = "") -> str:
    return header + "".join(row(*rating) + "\n" for rating in RATINGS) + extra


def export(user: int) -> str:
    rows = [f'{b},"A title, a comma","=""""",{s},"Read<br/>it"\n' for u, b, s in RATINGS if u == user]
    return "Book Id,Title,ISBN,My Rating,My Review\n" + "".join(rows) + '99,Unread,"=""""",0,\n'


TSV = table(lambda u, b, s: f"{u + 1}\t{b + 1}\t{s}\t881250949")
PIECES: dict[str, dict[str, str | bytes]] = {
    "goodbooks-10k": {"data/goodbooks-10k.csv": table("{},{},{}".format, "user_id,book_id,rating\n")},
    "goodbooks-10k-v1": {
        "data/goodbooks-10k-v1.csv": table(lambda u, b, s: f"{b},{u},{s}", "book_id,user_id,rating\n")
    },
    "goodreads-10m": {
        "data/goodreads-10m/user_rating_0_to_1000.csv": table(
            lambda u, b, s: f'{u},"Title, {b}",{WORDS[s - 1]}', "ID,Name,Rating\n"
        ),
        "data/goodreads-10m/user_rating_1000_to_2000.csv": (
            "ID,Name,Rating\n1001,Rating,This user doesn't have any rating\n"
        ),
        "data/goodreads-10m/book1-100k.csv": "Id,Name,RatingDist1\n1,Title,1:2\n",
    },
    "goodreads-ucsd-csv": {
        "data/goodreads_interactions.csv": table(
            lambda u, b, s: f"{u},{b},1,{s},0",
            "user_id,book_id,is_read,rating,is_reviewed\n",
            "0,99,1,0,0\n1,99,0,0,0\n",
        )
    },
    "goodreads-ucsd-json": {
        "data/goodreads_interactions_dedup.json.gz": gzip.compress(
            table(
                lambda u, b, s: json.dumps(
                    {"user_id": f"{u:032x}", "book_id": str(b), "rating": s, "review": 'Good,\nsays "one"'}
                ),
                extra=json.dumps({"user_id": f"{0:032x}", "book_id": "99", "rating": 0, "review": ""}),
            ).encode()
        )
    },
    "goodreads-export": {f"data/goodreads-exports/reader-{user:02}.csv": export(user) for user in range(USERS)},
    "book-crossing": {
        "data/BX-Book-Ratings.csv": table(
            lambda u, b, s: f'"{u}";"{isbn(b)}";"{2 * s}"',
            '"User-ID";"ISBN";"Book-Rating"\n',
            '"1";"055.3\xfc97";"0"\n',
        ).encode("latin-1")
    },
    "movielens-100k": {"data/ml-100k/u.data": TSV},
    "movielens-1m": {"data/ml-1m/ratings.dat": TSV.replace("\t", "::")},
    "movielens-latest": {
        "data/ml-latest/ratings.csv": table(
            lambda u, b, s: f"{u + 1},{b + 1},{s - 0.5},9", "userId,movieId,rating,timestamp\n"
        )
    },
    "amazon-books-2014": {"data/ratings_Books.csv": table(lambda u, b, s: f"AX{u},{isbn(b)},{s}.0,140000000")},
    "amazon-books-2018": {"data/Books.csv": table(lambda u, b, s: f"{isbn(b)},AX{u},{s}.0,140000000")},
    "amazon-books-2023": {
        "data/Books.csv.gz": gzip.compress(
            table(lambda u, b, s: f"AX{u},{isbn(b)},{s}.0,9", "user_id,parent_asin,rating,timestamp\n").encode()
        )
    },
    "recbole": {"data/recbole.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + TSV},
}
LEFT_OUT = {
    **{"goodreads-10m": 1, "goodreads-ucsd-csv": 2, "goodreads-ucsd-json": 1},
    **{"goodreads-export": USERS, "book-crossing": 1},
}


def apply(name: str, params: Path) -> Params:
    """Change a file of parameters as `xargs dvc exp run < settings/name.txt` does."""
    words = shlex.split((ROOT / "settings" / f"{name}.txt").read_text())
    overrides = [word for word in words if word != "--set-param"]
    apply_overrides(params, overrides)
    return load_params(params)


def write_piece(name: str, folder: Path) -> None:
    for file, content in PIECES[name].items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def test_every_collection_s_settings_are_tried() -> None:
    assert {path.stem for path in (ROOT / "settings").glob("*.txt")} == PIECES.keys() | {"accurate"}


@pytest.mark.parametrize("name", PIECES)
def test_a_collection_s_settings_fit_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_piece(name, tmp_path)
    params = apply(name, Path(shutil.copy(ROOT / "params.yaml", tmp_path)))
    monkeypatch.chdir(tmp_path)

    source = read_source(params.prepare)
    prepared = prepare(source, params.prepare)
    ratings = concatenate(prepared.parts)
    part, _ = draw_parts(ratings, params.split)

    assert source.left_out == ({"not rated": LEFT_OUT[name]} if name in LEFT_OUT else {})
    assert [len(ratings), len(prepared.user_ids), len(prepared.book_ids)] == [len(RATINGS), USERS, BOOKS]
    factor, offset = {"book-crossing": (2, 0), "movielens-latest": (1, -0.5)}.get(name, (1, 0))
    assert sorted(ratings.stars) == sorted(factor * stars + offset for *_, stars in RATINGS)
    assert len(set(part.tolist())) == 3


def test_settings_leave_nothing_of_those_before(tmp_path: Path) -> None:
    """But for words, which do no harm where ratings are numbers."""
    alone = {name: apply(name, Path(shutil.copy(ROOT / "params.yaml", tmp_path))).prepare for name in PIECES}
    for name in [*PIECES, *reversed(PIECES)]:
        after = apply(name, tmp_path / "params.yaml").prepare
        assert after.model_copy(update={"rating_words": alone[name].rating_words}) == alone[name]


def test_settings_fit_parameters_that_have_only_what_must_be_there(tmp_path: Path) -> None:
    alone = apply("goodreads-10m", Path(shutil.copy(ROOT / "params.yaml", tmp_path)))
    yaml = YAML()
    parameters = yaml.load(ROOT / "params.yaml")
    for name, field in Prepare.model_fields.items():
        if not field.is_required():
            del parameters["prepare"][name]
    yaml.dump(parameters, tmp_path / "params.yaml")

    assert apply("goodreads-10m", tmp_path / "params.yaml") == alone


# --- Under DVC ---


@pytest.mark.slow
def test_one_command_runs_on_a_collection_and_dvc_sees_its_folder_change(tmp_path: Path) -> None:
    """Of a folder, DVC sees every file: what was changed, and what was added."""
    project = copy_project(tmp_path / "project")
    write_piece("goodreads-10m", project)
    ran = run(project, "sh", "-c", "xargs dvc exp run split < settings/goodreads-10m.txt").stdout
    assert stages_run(ran) == ["prepare-ratings", "split"]
    assert "left out: not rated" in ran
    assert f"{len(RATINGS):,}" in ran
    assert stages_run(dvc(project, "repro", "split")) == []

    (project / "data/goodreads-10m/user_rating_2000_to_3000.csv").write_text("ID,Name,Rating\n2001,New,liked it\n")
    assert stages_run(dvc(project, "repro", "split")) == ["prepare-ratings", "split"]
    first = project / "data/goodreads-10m/user_rating_1000_to_2000.csv"
    first.write_text(first.read_text().replace("This user doesn't have any rating", "it was ok"))
    again = dvc(project, "repro", "split")
    assert stages_run(again) == ["prepare-ratings", "split"]
    assert f"{len(RATINGS) + 2:,}" in again
    assert run(project, "git", "status", "--porcelain", "data").stdout == ""


@pytest.mark.slow
def test_dvc_sees_a_pattern_s_folder_change(tmp_path: Path) -> None:
    """A pattern of a folder's files is named in two settings: what DVC watches is the folder."""
    project = copy_project(tmp_path / "project")
    for month in (1, 2):
        path = project / "data" / "months" / f"ratings-{month}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"user_id,book_id,rating\n{month},1,3\n{month},2,4\n")
    edit_params(project, "ratings: data/sample.csv", "ratings: data/months")
    edit_params(project, 'files: "*"', 'files: "ratings-*.csv"')
    dvc(project, "repro", "prepare-ratings")
    assert pq.read_table(project / "data/users.parquet")["user_id"].to_pylist() == [1, 2]

    (project / "data/months/ratings-3.csv").write_text("user_id,book_id,rating\n3,1,3\n")
    assert stages_run(dvc(project, "repro", "prepare-ratings")) == ["prepare-ratings"]
    assert pq.read_table(project / "data/users.parquet")["user_id"].to_pylist() == [1, 2, 3]
