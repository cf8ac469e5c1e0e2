"""Books to read, from the weights that `dvc repro` has trained."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from recommend.library import Library, read_library
from recommend.lists import MIN_RATINGS, REASONS, Books, nearest, recommend, recommend_all
from recommend.network import NAMES, WEIGHTS, Network, read_network
from recommend.output import FILES, show, tabulate, write_tables
from recommend.page import make_page
from recommend.readers import Reader, find_reader, read_reader
from recommend.titles import read_titles
from stages.program.errors import StageError, shorten
from stages.program.files import write_text
from stages.program.params import load_params
from stages.program.process import run_program
from stages.training.losses import read_validation_loss


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recommend", description=__doc__)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--user", metavar="ID", help="a reader's id, as in the ratings file")
    asked.add_argument("--users", type=Path, metavar="FILE", help="many readers: an id in each line; needs --output")
    asked.add_argument("--all", action="store_true", help="every reader; needs --output")
    asked.add_argument(
        "--rated",
        type=Path,
        metavar="FILE",
        help="a reader who isn't in the ratings file: a CSV with a book (id or title) and its stars in each line, "
        "or a Goodreads export",
    )
    asked.add_argument("--like", metavar="BOOK", help="the books nearest to one, by its id or its title")
    parser.add_argument("--model", choices=NAMES, help="default: the one with the lowest validation loss")
    parser.add_argument(
        "--count", type=positive, default=10, metavar="N", help="books in a list (default: %(default)s)"
    )
    parser.add_argument(
        "--min-ratings",
        type=positive,
        default=MIN_RATINGS,
        metavar="N",
        help="leave out books with fewer ratings (default: %(default)s)",
    )
    parser.add_argument("--why", action="store_true", help="for each book, the nearest ones that the reader has rated")
    parser.add_argument("--titles", type=Path, metavar="FILE", help="default: recommend.titles in params.yaml")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"write the list to a file: {', '.join(FILES)}")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page about one reader")
    parser.add_argument("--project", type=Path, default=Path(), metavar="FOLDER", help="default: this folder")
    arguments = parser.parse_args()
    if (arguments.all or arguments.users) and not arguments.output:
        parser.error("lists of many readers go to a file: --output FILE")
    if arguments.output and arguments.output.suffix not in FILES:
        parser.error(f"--output {arguments.output} should end in {', '.join(FILES)}")
    if arguments.html and not (arguments.user or arguments.rated):
        parser.error("a page is about one reader: --user ID or --rated FILE")
    if arguments.why and not (arguments.user or arguments.rated):
        parser.error("--why explains one reader's list: --user ID or --rated FILE")
    return arguments


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{shorten(text)!r} is not a whole number from 1")
    return int(text)


def main() -> None:
    """Find what is asked, load what that needs, answer."""
    asked = parse_arguments()
    library, scale = open_library(asked.project, asked.titles)
    compares = asked.like or asked.why
    key = asked.model or find_best(asked.project, WEIGHTS if compares else NAMES)
    if compares and key not in WEIGHTS:
        raise StageError(
            "--like and --why go by the books' learned vectors, biases have none: --model pytorch or keras"
        )
    network = read_network(key, asked.project, library.train)
    offered = np.flatnonzero(library.counts >= asked.min_ratings)
    if not len(offered):
        raise StageError(
            f"no book has {asked.min_ratings:,} ratings to train on, the most is {library.counts.max():,}: "
            "lower it with --min-ratings"
        )

    if asked.users or asked.all:
        users = read_users(asked.users, library) if asked.users else np.arange(len(library.user_ids))
        write_tables(asked.output, make_lists(library, network, users, offered, asked.count))
        return
    if asked.like:
        book = library.find_book(asked.like)
        books, reasons = nearest(network, book, offered, asked.count), []
        heading, score = f"Books like {library.name(book)}", "distance"
    else:
        reader = find_reader(library, asked.user) if asked.user else read_rated(asked.rated, library, scale)
        books = recommend(network.of_books(offered), reader.vector(network), reader.books, offered, asked.count)
        reasons = explain(library, network, books, reader) if asked.why else []
        heading, score = f"Books for {reader.name}, who has rated {len(reader.books):,}", "stars"
    if asked.html:
        networks = [read_network(key, asked.project, library.train) for key in WEIGHTS]
        lists = [
            (each, recommend(each.of_books(offered), reader.vector(each), reader.books, offered, asked.count))
            for each in networks
        ]
        write_text(asked.html, make_page(library, reader, lists, scale))
    if asked.output:
        table = tabulate(library, [books], score)
        write_tables(asked.output, [table.append_column("near", pa.array(reasons)) if reasons else table])
    if not asked.html and not asked.output:
        print(f"{heading}, by {NAMES[network.key]} (validation loss {network.val_loss:.4f})\n")
        print(show(library, books, score, reasons))


def open_library(project: Path, titles: Path | None) -> tuple[Library, list[float]]:
    """The project's tables with the books' titles, if it has any, and its rating scale."""
    params = load_params(project / "params.yaml")
    library = read_library(project)
    path = titles or (project / params.recommend.titles if params.recommend.titles else None)
    if path:
        ids = [str(book_id) for book_id in library.book_ids.to_pylist()]
        library = replace(library, titles=read_titles(path, ids, params.recommend.columns))
        if len(library.titles) < len(ids):
            note(f"{path} has titles for {len(library.titles):,} of the {len(ids):,} books; the others go by their ids")
    return library, params.prepare.rating_scale


def find_best(project: Path, keys: Iterable[str]) -> str:
    """The model with the lowest validation loss."""
    return min(keys, key=lambda key: read_validation_loss(project / "losses" / f"{key}.json"))


def read_rated(path: Path, library: Library, scale: list[float]) -> Reader:
    """A reader with ratings of their own; says which of these are of no use."""
    reader, unknown = read_reader(path, library, scale)
    if unknown:
        names = ", ".join(shorten(repr(name)) for name in unknown[:3])
        note(f"{len(unknown):,} books of {path} aren't among these ratings: {names}{', …' if len(unknown) > 3 else ''}")
    return reader


def read_users(path: Path, library: Library) -> NDArray[np.intp]:
    """The numbers of the readers whose ids a file has, one in each line."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    users = [library.find_user(line) for line in lines if line.strip()]
    if not users:
        raise StageError(f"{path} names no reader; it should have an id in each line")
    return np.array(users)


def explain(library: Library, network: Network, books: Books, reader: Reader) -> list[str]:
    """The rated books nearest to each, with their stars."""
    stars = dict(zip(reader.books.tolist(), reader.stars.tolist(), strict=True))
    return [
        "; ".join(
            f"{library.name(rated)} ({stars[rated]:g})"
            for rated in nearest(network, book, reader.books, REASONS).numbers.tolist()
        )
        for book in books.numbers.tolist()
    ]


def make_lists(
    library: Library, network: Network, users: NDArray[np.intp], offered: NDArray[np.intp], count: int
) -> Iterator[pa.Table]:
    """Many readers' lists, some at a time, with progress."""
    done = 0
    with tqdm(total=len(users), desc=NAMES[network.key], unit=" readers", disable=None) as bar:
        for lists in recommend_all(network.of_books(offered), users, library.ratings, offered, count):
            ids = library.user_ids.take(pa.array(users[done : done + len(lists)]))
            yield tabulate(library, lists, "stars", ids)
            done += len(lists)
            bar.update(len(lists))


def note(text: str) -> None:
    """Say something beside the answer."""
    print(f"note: {text}", file=sys.stderr)


if __name__ == "__main__":
    run_program(main)
