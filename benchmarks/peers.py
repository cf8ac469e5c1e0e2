"""Other people's recommenders, on the pipeline's own split: the time to fit, and the mean squared error.

Each gets its data converted before the clock starts, and predicts from its fitted arrays, all rows at once. Settings
are each library's defaults, but for the sizes that the names tell.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Cell, Table
from benchmarks.scale import Scale
from stages.ratings.table import Ratings, read_ratings

Predictor: TypeAlias = Callable[[Ratings], NDArray[np.floating]]
Fit: TypeAlias = Callable[[], Predictor]
Prepare: TypeAlias = Callable[[Ratings], Fit]

DAMPING = 5
"""Of biases: as in `train-baselines`."""
SEED = 42


class Fitted(NamedTuple):
    """CPU seconds to fit, and the mean squared errors of the validation and of the test rows."""

    seconds: float
    val_mse: float
    test_mse: float


def measure(scale: Scale, work: Path) -> list[Table]:
    """Fit every peer to `train.parquet` in the folder; judge it by the other two parts."""
    training, validation, test = (read_ratings(work / f"{name}.parquet") for name in ("train", "validation", "test"))
    rows: list[list[Cell]] = []
    left_out = []
    for name, prepare in PEERS.items():
        try:
            rows.append([name, *fit_peer(prepare, training, validation, test)])
        except Exception as error:  # other people's programs: what one raises mustn't lose what the others reached
            left_out.append(f"{name} ({error})")
    return [
        Table(
            f"Peers: {len(training):,} ratings to fit",
            ["name", *Fitted._fields],
            rows,
            f"Left out: {'; '.join(left_out)}. benchmarks/README.md says how to install them." if left_out else "",
        )
    ]


def fit_peer(prepare: Prepare, training: Ratings, validation: Ratings, test: Ratings) -> Fitted:
    """Fit one and judge it; its data is converted before the clock starts.

    Raises:
        ImportError: it isn't installed.
    """
    fit = prepare(training)
    start = time.process_time()
    predict = fit()
    seconds = time.process_time() - start
    return Fitted(seconds, squared_error(predict, validation), squared_error(predict, test))


def squared_error(predict: Predictor, ratings: Ratings) -> float:
    """The mean, in squared stars."""
    return float(np.mean((predict(ratings) - ratings.stars.astype(np.float64)) ** 2))


def factors(
    mean: float,
    biases: tuple[NDArray[np.floating], NDArray[np.floating]],
    vectors: tuple[NDArray[np.floating], NDArray[np.floating]],
) -> Predictor:
    """Predict mean + the user's bias + the book's bias + the user's vector · the book's vector."""

    def predict(ratings: Ratings) -> NDArray[np.floating]:
        stars: NDArray[np.floating] = mean + biases[0][ratings.users] + biases[1][ratings.books]
        stars += np.einsum("nd,nd->n", vectors[0][ratings.users], vectors[1][ratings.books])
        return stars

    return predict


def surprise_svd(training: Ratings) -> Fit:
    """Surprise's SVD with 10 factors."""
    from surprise import SVD, Trainset

    of_users: dict[int, list[tuple[int, float]]] = {user: [] for user in range(training.user_count)}
    of_books: dict[int, list[tuple[int, float]]] = {book: [] for book in range(training.book_count)}
    columns = (training.users.tolist(), training.books.tolist(), training.stars.tolist())
    for user, book, stars in zip(*columns, strict=True):
        of_users[user].append((book, stars))
        of_books[book].append((user, stars))
    names = {user: user for user in of_users}, {book: book for book in of_books}
    trainset = Trainset(of_users, of_books, len(of_users), len(of_books), len(training), (1, 5), *names)

    def fit() -> Predictor:
        model = SVD(n_factors=10, random_state=SEED).fit(trainset)
        return factors(trainset.global_mean, (model.bu, model.bi), (model.pu, model.qi))

    return fit


def lenskit_bias(training: Ratings) -> Fit:
    """LensKit's damped biases."""
    from lenskit.basic.bias import BiasModel

    data = _lenskit_dataset(training)

    def fit() -> Predictor:
        model = BiasModel.learn(data, DAMPING)
        biases = (model.user_biases, model.item_biases)
        return factors(model.global_bias, biases, (np.zeros((len(biases[0]), 1)), np.zeros((len(biases[1]), 1))))

    return fit


def lenskit_als(training: Ratings) -> Fit:
    """LensKit's biased alternating least squares with 10 factors."""
    from lenskit.als import BiasedMFScorer

    data = _lenskit_dataset(training)

    def fit() -> Predictor:
        model = BiasedMFScorer(embedding_size=10, damping=DAMPING)
        model.train(data)
        biases = (model.bias.user_biases, model.bias.item_biases)
        return factors(model.bias.global_bias, biases, (model.user_embeddings, model.item_embeddings))

    return fit


def _lenskit_dataset(training: Ratings) -> object:
    """The rows in LensKit's form; it numbers users and items in the order of their ids, as we do."""
    import pandas as pd
    from lenskit.data import from_interactions_df

    frame = pd.DataFrame({"user_id": training.users, "item_id": training.books, "rating": training.stars})
    data: object = from_interactions_df(frame)
    return data


def myfm_gibbs(training: Ratings) -> Fit:
    """Fit myFM's Bayesian factorisation with 8 factors and 200 Gibbs samples."""
    import myfm
    from scipy import sparse

    sizes = [training.user_count, training.book_count]

    def one_hot(ratings: Ratings) -> "sparse.csr_matrix":
        columns = np.stack([ratings.users, ratings.books + sizes[0]], axis=1).ravel()
        starts = np.arange(0, len(columns) + 1, 2)
        return sparse.csr_matrix((np.ones(len(columns)), columns, starts), (len(ratings), sum(sizes)))

    rows = one_hot(training)

    def fit() -> Predictor:
        model = myfm.MyFMRegressor(rank=8, random_seed=SEED)
        model.fit(rows, training.stars.astype(np.float64), n_iter=200, group_shapes=sizes)
        return lambda ratings: np.asarray(model.predict(one_hot(ratings)))

    return fit


def cornac_mf(training: Ratings) -> Fit:
    """Cornac's matrix factorisation with biases and 10 factors."""
    from cornac.data import Dataset
    from cornac.models import MF

    ids = ({user: user for user in range(training.user_count)}, {book: book for book in range(training.book_count)})
    columns = (training.users.astype(np.int64), training.books.astype(np.int64), training.stars.copy())
    data = Dataset(len(ids[0]), len(ids[1]), *ids, columns, seed=SEED)

    def fit() -> Predictor:
        model = MF(k=10, num_threads=1, seed=SEED).fit(data)
        return factors(data.global_mean, (model.u_biases, model.i_biases), (model.u_factors, model.i_factors))

    return fit


PEERS: dict[str, Prepare] = {
    "LensKit biases": lenskit_bias,
    "LensKit biased ALS, 10 factors": lenskit_als,
    "Surprise SVD, 10 factors": surprise_svd,
    "Cornac MF, 10 factors": cornac_mf,
    "myFM, 8 factors, 200 samples": myfm_gibbs,
}
"""The preparation of each, by the name that shows."""
