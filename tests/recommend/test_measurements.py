"""What the documented figures about lists are measured with."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import list_settings, lists
from recommend.library import Library
from recommend.network import read_network
from stages.program.params import Params
from stages.ratings.table import Ratings, read_ratings


def test_hits_and_ndcg_of_lists_counted_by_hand() -> None:
    users = np.array([0, 2])
    part = Ratings(np.array([0, 0, 2], np.int32), np.array([11, 12, 3], np.int32), np.array([5, 2, 3], np.float32))
    listed = np.tile(np.arange(20, 20 + lists.COUNT), (2, 1))
    listed[0, 2] = 12
    expected = (1 / np.log2(4)) / (1 + 1 / np.log2(3))
    assert lists.judge(listed, users, part, 0) == pytest.approx((0.5, expected / 2))
    assert lists.judge(listed, users, part, 4) == (0, 0)


def test_known_books_make_room_for_the_next() -> None:
    known = Ratings(np.array([1, 1], np.int32), np.array([2, 4], np.int32), np.ones(2, np.float32))
    filled = lists.fill(np.array([[2, 0, 4, 3, 1]]), np.array([1]), known)
    assert filled[0, :3].tolist() == [0, 3, 1]
    assert (filled[0, 3:] == -1).all()


def test_pairs_in_order_is_the_share_of_the_readers_pairs(trained: Path, library: Library) -> None:
    part = read_ratings(trained / "data" / "test.parquet")
    predictions = read_network("keras", trained, library).predict_rows(part)
    pairs = [
        float(predictions[one] > predictions[other]) + 0.5 * float(predictions[one] == predictions[other])
        for one in range(len(part)) for other in range(len(part))
        if part.users[one] == part.users[other] and part.stars[one] > part.stars[other]
    ]  # fmt: skip
    assert lists.pairs_in_order(predictions, part) == pytest.approx(np.mean(pairs))


def test_prints_what_lists_are_worth(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["lists", "--project", str(trained), "--part", "test", "--min-ratings", "1"])
    lists.main()
    rows = capsys.readouterr().out.splitlines()[-5:]
    assert [row.split("  ")[0].partition(",")[0] for row in rows] == [
        *("drawn at random", "most rated", "PyTorch", "Keras", "user and book biases")
    ]
    assert 0 < float(rows[2].split()[-5].rstrip("%")) < 100


def test_fits_readers_who_were_held_out(
    trained: Path, library: Library, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_settings, "HELD_OUT", 8)
    test = read_ratings(trained / "data" / "test.parquet")
    lines = [*list_settings.hold_out_readers(read_network("pytorch", trained, library), params, library, test)]
    losses = [float(line.split("test ")[1].partition(",")[0]) for line in lines]
    assert len({*losses}) == len(losses) == 2 + len(list_settings.WEIGHTS_TRIED)
    differ = [float(line.split()[-1]) for line in lines[1:-1]]
    assert differ[0] < differ[-1]  # the stronger the prior, the nearer to the mean


def test_thins_books(params: Params, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on: list[Ratings] = []
    monkeypatch.setattr(list_settings, "fit", lambda trainer, train, *rest: trained_on.append(train))
    monkeypatch.setattr(list_settings, "MINIMA", (1, 5))
    lines = [*list_settings.thin_books(params, library.train, library.validation, seed=0)]
    assert trained_on[0].user_count == library.train.user_count
    assert (np.bincount(trained_on[0].books) < np.minimum(library.counts, 80)).any()
    assert [line.partition(",")[0] for line in lines] == ["pytorch", "biases"]


def test_counts_neighbours_by_the_same_author(trained: Path, titled: Library) -> None:
    distance, angle = list_settings.compare_authors(titled, read_network("keras", trained, titled))
    assert distance.endswith("by chance 31.67%")  # of three authors, 14, 13 and 13 of the 40 books
    assert angle.startswith("keras, by the angle: ")
