"""Books to read, from the weights that `dvc repro` has trained."""

import argparse
import itertools
import signal
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recommend.library import Library, read_library, read_reader
from recommend.lists import FILES, MIN_RATINGS, as_rows, column_types, list_books, nearest, show, write_rows
from recommend.network import NAMES, WEIGHTS, read_network
from recommend.page import make_page
from stages.program.errors import StageError, shorten
from stages.program.files import write_text
from stages.program.params import load_params
from stages.program.process import run_program
from stages.training.losses import read_validation_loss

BATCH = 1024
"""Readers whose lists are held at a time."""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recommend", description=__doc__)
    add = parser.add_argument
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--user", metavar="ID", help="a reader's id, as in the ratings file")
    whom.add_argument("--users", type=file, metavar="FILE", help="many readers: an id in each line; needs --output")
    whom.add_argument("--all", action="store_true", help="every reader; needs --output")
    whom.add_argument(
        "--rated",
        type=file,
        metavar="FILE",
        help="a reader who isn't in the ratings file: a CSV with the columns book (id or title) and stars",
    )
    whom.add_argument("--like", metavar="BOOK", help="the books nearest to one, by its id or its title")
    add("--model", choices=NAMES, help="default: the one with the lowest validation loss")
    add("--count", type=positive, default=10, metavar="N", help="books in a list (default: %(default)s)")
    add("--min-ratings", type=positive, default=MIN_RATINGS, metavar="N",
        help="leave out books with fewer ratings (default: %(default)s)")  # fmt: skip
    add("--why", action="store_true", help="for each book, the nearest ones that the reader has rated")
    add("--titles", type=file, metavar="FILE", help="default: recommend.titles in params.yaml")
    add("--output", type=Path, metavar="FILE", help=f"write the list to a file: {', '.join(FILES)}")
    add("--html", type=Path, metavar="FILE", help="write a page about one reader")
    add("--project", type=Path, default=Path(), metavar="FOLDER", help="default: this folder")
    asked = parser.parse_args()
    if (asked.all or asked.users) and not asked.output:
        parser.error("lists of many readers go to a file: --output FILE")
    if asked.output and asked.output.suffix not in FILES:
        parser.error(f"--output {asked.output} should end in {', '.join(FILES)}")
    if asked.html and asked.user is None and not asked.rated:
        parser.error("a page is about one reader: --user ID or --rated FILE")
    if asked.why and asked.like is not None:
        parser.error("--why explains a reader's list, and --like has no reader")
    if (asked.why or asked.like is not None) and asked.model == "biases":
        parser.error("--why and --like go by learned vectors, and biases have none: --model pytorch or keras")
    return asked


def file(text: str) -> Path:
    """A file that is there, or a pipe."""
    if not Path(text).exists() or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no file {shorten(text, 200)}")
    return Path(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{shorten(text)!r} is not a whole number from 1")
    return int(text)


def main() -> None:
    """Load what the question needs, answer it."""
    asked = parse_arguments()
    params = load_params(asked.project / "params.yaml")
    named = params.recommend.titles
    titles = asked.titles or (asked.project / named if named else None)
    if titles and not titles.exists():
        raise StageError(f"{asked.project / 'params.yaml'}: recommend.titles is {named!r}; there is no such file")
    library = read_library(asked.project, titles, params.recommend.columns)
    keys = [asked.model] if asked.model else WEIGHTS if asked.why or asked.like is not None else NAMES
    best = min(keys, key=lambda key: read_validation_loss(asked.project / "losses" / f"{key}.json"))
    network = read_network(best, asked.project, library)
    left_out = library.counts < asked.min_ratings
    if left_out.all():
        raise StageError(
            f"no book has {asked.min_ratings:,} ratings to train on, the most is {library.counts.max():,}: "
            "lower it with --min-ratings"
        )
    if asked.all or asked.users:
        users = read_users(asked.users, library) if asked.users else range(len(library.user_ids))
        readers = map(library.reader, tqdm(users, NAMES[network.key], unit=" readers", disable=None))
        batches = iter(lambda: [*itertools.islice(readers, BATCH)], [])
        lists = (list_books(library, network, batch, left_out, asked.count, asked.why) for batch in batches)
        write_rows(asked.output, lists, column_types(library, network))
        return
    if asked.like is not None:
        book, score = library.find_book(asked.like), "distance"
        heading = f"Books like {library.name(book)}"
        rows = as_rows(library, nearest(network, book, np.flatnonzero(~left_out), asked.count), score)
    else:
        new = asked.user is None
        scale = params.prepare.rating_scale
        reader = read_reader(asked.rated, library, scale) if new else library.reader(library.find_user(asked.user))
        heading, score = f"Books for {reader.name}, who has rated {len(reader.books):,}", "stars"
        rows = list_books(library, network, [reader], left_out, asked.count, asked.why)
        for row in rows:
            del row["reader"]
    if asked.html:
        networks = [network if key == best else read_network(key, asked.project, library) for key in WEIGHTS]
        pairs = [(each, list_books(library, each, [reader], left_out, asked.count, why=False)) for each in networks]
        write_text(asked.html, make_page(library, reader, pairs, scale))
    if asked.output:
        write_rows(asked.output, [rows], column_types(library, network))
    if not asked.html and not asked.output:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
        print(f"{heading}, by {NAMES[network.key]} (validation loss {network.val_loss:.4f})\n\n{show(rows, score)}")


def read_users(path: Path, library: Library) -> list[int]:
    """The numbers of the readers whose ids a file has, one in each line."""
    users = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        try:
            users += [library.find_user(line)] if line.strip() else []
        except StageError as error:
            raise StageError(f"{path}, line {number}: {error}") from error
    if not users:
        raise StageError(f"{path} names no reader; it should have an id in each line")
    return users


if __name__ == "__main__":
    run_program(main)
