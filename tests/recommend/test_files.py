"""What people bring: titles from files of many origins, a reader's own ratings, ids and titles as they type them."""

import gzip
from pathlib import Path

import pytest

from recommend.files import read_titles
from recommend.library import Library, read_reader
from stages.program.errors import StageError
from stages.program.params import TitleColumns
from tests.recommend.projects import SCALE, write
from tests.samples import GOODBOOKS, needs_goodbooks

TITLES: dict[str, str] = {
    "goodbooks-10k, first version": 'id,book_id,authors,original_title,title\n1,2,A,x,One\n2,77,"B, C",y,Two\n',
    "ids of another kind, one of them the same": 'book_id,id,authors,title\n2,1,A,One\n77,2,"B, C",Two\n',
    "goodbooks-10k, second version": 'book_id,goodreads_book_id,authors,title\n1,2,A,One\n2,77,"B, C",Two\n',
    "a Goodreads export": 'Book Id,Title,Author,ISBN\n1,One,A,"=""0439023483"""\n2,Two,"B, C","="""""\n',
    "JSON lines": '{"id": "1", "title": "One", "authors": ["A"]}\n{"id": 2, "title": "Two", "authors": "B, C"}\n',
    "a byte order mark, Windows lines": '\ufeffid,title,author\r\n1,One,A\r\n2,Two,"B, C"\r\n',
    "control characters": 'id,title,author\n1,\x1b One,A\n2,Two,"B,\x07 C"\n',
    "ids as pandas writes them beside gaps": 'id,title,author\n1.0,One,A\n2.0,Two,"B, C"\n,Three,D\n',
    "rows that are too long or too short": 'id,author,title\n1,A,One,more,more\n2,"B, C",Two\n3\n',
}


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("text", TITLES.values(), ids=TITLES)
def test_finds_titles(text: str, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "titles"
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    assert read_titles(path, ["1", "2"], None) == {0: ("One", "A"), 1: ("Two", "B, C")}


def test_takes_authors_that_are_ids_for_none(tmp_path: Path) -> None:
    text = '{"book_id": "1", "title": "One", "authors": [{"author_id": "9", "role": ""}]}\n'
    assert read_titles(write(tmp_path / "ucsd", text), ["1"], None) == {0: ("One", "")}


def test_takes_columns_by_the_names_that_are_given(tmp_path: Path) -> None:
    path = write(tmp_path / "titles", "nummer,titel,title,von\n1,Eins,One,A\n")
    columns = TitleColumns(book="nummer", title="titel", author="von")
    assert read_titles(path, ["1"], columns) == {0: ("Eins", "A")}
    with pytest.raises(StageError, match=r"no column titeln, but 'nummer', 'titel'"):
        read_titles(path, ["1"], TitleColumns(book="nummer", title="titeln"))
    with pytest.raises(StageError, match=r"no column by, but"):
        read_titles(path, ["1"], TitleColumns(book="nummer", title="titel", author="by"))


WRONG_TITLES: dict[str, tuple[bytes, str]] = {
    "none of the books": (b"id,title\n7,Seven\n", "has none of the 2 books, with ids like '1'"),
    "no titles": (b"id,author\n1,A\n", "no column title or original_title or name, but 'id', 'author'"),
    "no ids": (b"title,author\nOne,A\n", "no column id or book_id"),
    "empty": (b"", "no column id or book_id"),
    "not UTF-8": (b"id,title\n1,\xff\n", "isn't readable as CSV or JSON lines in UTF-8"),
    "broken JSON": (b'{"id": 1, "title"\n', "isn't readable as CSV or JSON lines"),
    "JSON that is no book": (b'{"id": 7, "title": "x"}\n3\n', "3 is no object"),
    "cut off": (gzip.compress(b"id,title\n1,One\n" * 1000)[:40], "isn't readable"),
}


@pytest.mark.parametrize(("content", "message"), WRONG_TITLES.values(), ids=WRONG_TITLES)
def test_refuses_titles(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "titles"
    path.write_bytes(content)
    with pytest.raises(StageError) as caught:
        read_titles(path, ["1", "2"], None)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_says_how_many_titles_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "few.csv", "id,title\n1,One\n2,Two\n")
    read_titles(path, [*"12345"], None)
    assert f"{path} has titles for 2 of the 5 books" in capsys.readouterr().err


@needs_goodbooks
def test_finds_all_titles_of_goodbooks() -> None:
    titles = read_titles(GOODBOOKS.parent / "books.csv", [str(number) for number in range(1, 10_001)], None)
    assert len(titles) == 10_000
    assert titles[0] == ("The Hunger Games (The Hunger Games, #1)", "Suzanne Collins")


# --- Ids and titles ---

FOUND = {"b007": 7, "the hobbit ": 7, "DUNE": 8, "Dune (Dune, #1)": 8, "Dune (Dune Chronicles #1)": 8, "Book 12": 12}
NOT_FOUND: dict[str, str] = {
    "emma": "2 books are called 'emma'; name one by its id: b009 Emma — Author 0; b010 Emma — Author 1",
    "The Hobit": "no books are called 'The Hobit'; name one by its id: b007 The Hobbit — Author 1",
    "hobbit": "no books are called 'hobbit'; name one by its id: b007 The Hobbit — Author 1",
    "qqqqqq": "no books are called 'qqqqqq'; no title is spelt alike",
}


def test_finds_a_book_by_id_or_title(titled: Library) -> None:
    assert {wanted: titled.find_book(wanted) for wanted in FOUND} == FOUND


@pytest.mark.parametrize(("wanted", "message"), NOT_FOUND.items())
def test_offers_the_nearest_books(wanted: str, message: str, titled: Library) -> None:
    with pytest.raises(StageError) as caught:
        titled.find_book(wanted)
    assert str(caught.value) == message


def test_offers_the_nearest_ids(library: Library) -> None:
    assert library.find_user(" 1040") == 4
    for wanted, near in {"1041": "1030, 1040, 1050, 1060", "5": "1000, 1010", "../../etc": "1000, 1010"}.items():
        with pytest.raises(StageError) as caught:
            library.find_user(wanted)
        assert str(caught.value) == f"no reader {wanted!r} in these ratings; the nearest ids: {near}"
    with pytest.raises(StageError, match="no book 'b0071'; the nearest ids: b006, b007, b008, b009;"):
        library.find_book("b0071")


# --- A reader's own ratings ---

RATED: dict[str, str] = {
    "books by id": "book,stars\nb007,5\nb008,2\n",
    "books by title": "Title,Rating\nThe Hobbit,5\ndune,2.0\n",
    "other columns": 'stars,note,book_id\n5,"a, b",b007\n2,,b008\n',
    "a later rating counts": "book,stars\nb007,1\nb008,2\nb007,5\n",
    "a Goodreads export": (
        'Book Id,Title,Author,My Rating\n5907,The Hobbit,J.R.R. Tolkien,5\n234225,"Dune (Dune, #1)",Frank Herbert,2\n'
        "1,Unread,Nobody,0\n"
    ),
}


@pytest.mark.parametrize("text", RATED.values(), ids=RATED)
def test_reads_a_readers_own_ratings(
    text: str, titled: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = read_reader(write(tmp_path / "mine.csv", text), titled, SCALE)
    assert dict(zip(reader.books.tolist(), reader.stars.tolist(), strict=True)) == {7: 5.0, 8: 2.0}
    assert capsys.readouterr().err == ""


def test_says_which_books_are_unknown(titled: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "mine.csv", "title,stars\nDune,4\nEmma,5\n\x1bOdd,3\n")
    assert read_reader(path, titled, SCALE).books.tolist() == [8]
    assert f"{path}: 2 of 3 rows don't name one book of these: 'Emma', '\\x1bOdd'" in capsys.readouterr().err


WRONG_RATED: dict[str, tuple[str, str]] = {
    "off the scale": ("book,stars\nb007,5\nb008,6\n", "row 2: '6' is no rating from 1 to 5"),
    "no number": ("book,stars\nb007,good\n", "row 1: 'good' is no rating"),
    "NaN": ("book,stars\nb007,nan\n", "row 1: 'nan' is no rating"),
    "no stars": ("book,stars\nb007\n", "row 1: 'None' is no rating"),
    "no header": ("b007,5\nb008,2\n", "has columns 'b007', '5'; the first line should name book (or title) and stars"),
    "unknown books": ("book,stars\nx,5\ny,3\n", "rates no book of these ratings"),
    "nothing": ("", "the first line should name book (or title) and stars"),
}


@pytest.mark.parametrize(("text", "message"), WRONG_RATED.values(), ids=WRONG_RATED)
def test_refuses_a_readers_own_ratings(text: str, message: str, library: Library, tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        read_reader(write(tmp_path / "mine.csv", text), library, SCALE)
    assert message in str(caught.value)
