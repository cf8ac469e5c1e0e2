"""The settings for quality, and the picture of what they reach."""

from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.quality import draw, read_settings
from benchmarks.ratings import change_params


def test_the_accurate_settings_are_valid_ones() -> None:
    changes = read_settings()
    lines = (ROOT / "settings" / "accurate.txt").read_text().splitlines()
    assert len(changes) == len(lines)
    assert all(line.startswith("--set-param ") for line in lines)

    params = change_params(changes)
    assert params.train.average_epochs
    assert params.model.output_bias == "mean"
    assert params.model.hidden_units == [32]


def test_draws_what_lies_above_the_picture_too(tmp_path: Path) -> None:
    def result(*losses: float) -> dict[str, list[float]]:
        return {"seconds": [3.0] * len(losses), "val_mse": [*losses], "test_mse": [*losses]}

    results = {"user and book biases": result(0.7028), "PyTorch, plain": result(0.88, 0.87), "myFM": result(0.7007)}
    draw(results, tmp_path / "quality.png")
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
