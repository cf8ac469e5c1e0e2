"""How the settings of `recommend` were chosen, on validation rows: prints tables of docs/recommending.md.

Trains the project's networks several times: without some readers, to fit these as new ones; and on ratings thinned to a
long tail, to see what books with few ratings are worth. With titles: how many neighbours are by the same author.
"""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.lists import reader_rows
from recommend.library import Library, read_library
from recommend.lists import nearest
from recommend.network import WEIGHTS, Network, make_prior, read_hdf5, read_network, read_safetensors
from stages.program.params import Params, load_params
from stages.program.process import run_program
from stages.ratings.table import Ratings, read_ratings
from stages.train_baselines import fit_biases, mean_squared_error
from stages.train_keras import KerasTrainer
from stages.train_torch import TorchTrainer
from stages.training.fit import Trainer, fit

HELD_OUT, DIFFERING, WEIGHTS_TRIED = 3000, 500, (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
"""Readers who aren't trained on; those whose predictions are compared; how much the prior may weigh."""

THINNINGS, LONGEST_TAIL, TOP = 3, 80, 1000
MINIMA = (1, 2, 3, 5, 8, 10, 15, 20, 30, 40, 60)
"""Times that books are thinned, to 1 up to so many ratings; the rows that are judged; the thresholds."""


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.list_settings", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path(), metavar="FOLDER", help="default: this folder")
    parser.add_argument("--titles", type=Path, metavar="FILE")
    asked = parser.parse_args()
    params = load_params(asked.project / "params.yaml")
    library, test = read_library(asked.project, asked.titles), read_ratings(asked.project / "data" / "test.parquet")
    networks = [read_network(key, asked.project, library) for key in WEIGHTS]
    tables = [
        *(compare_authors(library, network) for network in networks if asked.titles),
        *(hold_out_readers(network, params, library, test) for network in networks),
        *(thin_books(params, library.train, library.validation, seed) for seed in range(THINNINGS)),
    ]
    for line in itertools.chain.from_iterable(tables):
        print(line, flush=True)


def hold_out_readers(known: Network, params: Params, library: Library, test: Ratings) -> Iterator[str]:
    """The loss for readers who were trained on, and for the same readers as new ones, by the weight of the prior."""
    train, key = library.train, known.key
    held = np.zeros(train.user_count, np.bool_)
    held[np.random.default_rng(0).permutation(train.user_count - 1)[:HELD_OUT]] = True  # the last keeps the count
    rest, validation = train[~held[train.users]], library.validation
    judged = [part[held[part.users]] for part in (validation, test)]
    trainer: Trainer = TorchTrainer(params, rest) if key == "pytorch" else KerasTrainer(params, rest)
    fit(trainer, rest, validation[~held[validation.users]], params.train)
    weights = (read_safetensors if key == "pytorch" else read_hdf5)(trainer.save())
    some = np.flatnonzero(held)[:DIFFERING]
    yield f"{key}, trained on: " + show_losses(known, judged)
    for weight in WEIGHTS_TRIED:
        fitted = fit_readers(Network(key, np.nan, *weights, make_prior(weights[1][~held], weight)), train, held)
        again = fit_readers(replace(known, prior=make_prior(known.user_vectors, weight)), train, held)
        differences = [
            known.predict(known.user_vectors[user]) - known.predict(again.user_vectors[user]) for user in some
        ]
        distance = np.sqrt(np.mean(np.square(differences)))
        yield f"{key}, weight {weight}: {show_losses(fitted, judged)}, differ by {distance:.3f}"
    mean = np.tile(fitted.prior[0], (len(held), 1))
    yield f"{key}, the mean vector: " + show_losses(replace(fitted, user_vectors=mean), judged)


def fit_readers(network: Network, train: Ratings, readers: NDArray[np.bool_]) -> Network:
    """The network with vectors of some readers fitted to their training rows."""
    vectors, rows = network.user_vectors.copy(), reader_rows(train)
    for user in np.flatnonzero(readers):
        vectors[user] = network.fit_reader(train.books[rows[user]], train.stars[rows[user]])
    return replace(network, user_vectors=vectors)


def show_losses(network: Network, judged: list[Ratings]) -> str:
    """Of the validation and the test rows."""
    losses = [mean_squared_error(network.predict_rows(part).astype(np.float64), part) for part in judged]
    return "validation {:.4f}, test {:.4f}".format(*losses)


def thin_books(params: Params, train: Ratings, validation: Ratings, seed: int) -> Iterator[str]:
    """What is rated above the reader's own bias in the rows predicted farthest above it, by the book's ratings."""
    random = np.random.default_rng(seed)
    kept = np.exp(random.uniform(0, np.log(LONGEST_TAIL), train.book_count)).astype(int)
    order = random.permutation(len(train))
    order = order[np.argsort(train.books[order], kind="stable")]
    place = np.empty(len(train), int)
    starts = np.searchsorted(train.books[order], np.arange(train.book_count))
    place[order] = np.arange(len(train)) - starts[train.books[order]]
    keep = place < kept[train.books]
    keep[np.unique(train.users, return_index=True)[1]] = True
    thinned = train[np.flatnonzero(keep)]
    counts = np.bincount(thinned.books)
    trainer = TorchTrainer(params, thinned)
    fit(trainer, thinned, validation, params.train)
    network = Network("pytorch", np.nan, *read_safetensors(trainer.save()), prior=make_prior(np.eye(2), 1))
    some = replace(network, book_vectors=network.book_vectors[::50])
    of_readers = np.array([some.predict(vector).mean() for vector in network.user_vectors])
    biases, truth = fit_biases(thinned), fit_biases(train)
    above = {
        "pytorch": network.predict_rows(validation) - of_readers[validation.users],
        "biases": biases.of_books[validation.books],
    }
    really = validation.stars - truth.mean - truth.of_users[validation.users]
    for name, predicted in above.items():
        figures = []
        for least in MINIMA:
            rows = np.flatnonzero(counts[validation.books] >= least)
            figures.append(f"{least}: {really[rows[np.argsort(-predicted[rows])[:TOP]]].mean():.3f}")
        yield f"{name}, thinned to {len(thinned):,}, at least " + ", ".join(figures)


def compare_authors(library: Library, network: Network) -> Iterator[str]:
    """Of the ten nearest books to one by an author of five or more, the share by the same (first) author."""
    names = [
        library.titles.get(book, ("", f"book {book}"))[1].partition(",")[0] for book in range(len(library.book_ids))
    ]
    authors = np.unique(names, return_inverse=True)[1]
    several = np.flatnonzero(np.bincount(authors)[authors] >= 5)
    chance = np.mean(np.bincount(authors)[authors][several] - 1) / (len(authors) - 1)
    centred = network.book_vectors - network.book_vectors.mean(axis=0)
    angles = replace(network, book_vectors=centred / np.linalg.norm(centred, axis=1, keepdims=True))
    for name, vectors in (("distance", network), ("angle", angles)):
        neighbours = [nearest(vectors, book, np.arange(len(authors)), 10).numbers for book in several.tolist()]
        share = np.mean(authors[neighbours] == authors[several, None])
        yield f"{network.key}, by the {name}: {share:.2%} by the same author, by chance {chance:.2%}"


if __name__ == "__main__":
    run_program(main)
