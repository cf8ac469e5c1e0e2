"""Nothing that a file from elsewhere holds is executed."""

import shutil
from pathlib import Path

import h5py
import pytest
import safetensors.numpy
import yaml

from tests.project import dvc, failure, read_outputs, stage_command, stages_run

WEIRD_NAMES = [
    "with spaces.csv",
    "it's.csv",
    'in "quotes".csv',
    "$(touch pwned).csv",
    "`touch pwned`.csv",
    "a; touch pwned.csv",
    "a && touch pwned",
    "a | tee pwned",
    "a > pwned",
    "-rf.csv",
    "--help",
    "two\nlines.csv",
    "${HOME}.csv",
    "${train.epochs}.csv",
    "*.csv",
    "%s.csv",
    "ratings.csv\\",
    "Ελλάς 本.csv",
    "!!python.csv",
]


def name_ratings(project: Path, name: str) -> None:
    """Put `prepare.ratings` into params.yaml as a program would, quoted as it must be."""
    path = project / "params.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["prepare"]["ratings"] = name
    path.write_text(yaml.safe_dump(settings, allow_unicode=True))


@pytest.mark.parametrize("name", WEIRD_NAMES)
def test_any_name_is_a_file_s_name_and_nothing_more(small: Path, name: str) -> None:
    """Under DVC, as a user runs it."""
    shutil.copy(small / "data" / "sample.csv", small / name)
    expected = (small / "data" / "ratings.parquet").read_bytes()
    name_ratings(small, name)

    assert stages_run(dvc(small, "repro", "prepare-ratings")) == ["prepare-ratings"]
    assert (small / "data" / "ratings.parquet").read_bytes() == expected
    assert not [*small.rglob("pwned")]


PAYLOADS = [
    "!!python/object/apply:os.system ['touch pwned']",
    "!!python/object/new:subprocess.check_output [[touch, pwned]]",
    "!!python/name:os.system",
    "!!python/module:pwned",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_yaml_tag_runs_nothing(small: Path, payload: str) -> None:
    text = (small / "params.yaml").read_text()
    (small / "params.yaml").write_text(text.replace("epochs: 2", f"epochs: {payload}"))
    assert "params.yaml" in failure(small, *stage_command(small, "split"))
    through_dvc = dvc(small, "repro", check=False)
    assert "ERROR" in through_dvc
    assert "Traceback" not in through_dvc
    assert not [*small.rglob("pwned")]


def test_weights_hold_numbers_and_nothing_to_execute(finished_small: Path) -> None:
    tensors = safetensors.numpy.load_file(finished_small / "models" / "pytorch.safetensors")
    assert {tensor.dtype.kind for tensor in tensors.values()} == {"f"}

    kinds = set()
    with h5py.File(finished_small / "models" / "keras.weights.h5") as file:
        file.visititems(lambda _, item: kinds.add(item.dtype.kind) if isinstance(item, h5py.Dataset) else None)
    assert kinds == {"f", "i"}


def test_no_output_is_a_pickle(finished_small: Path) -> None:
    """Pickles start with 0x80 and a protocol number; PyTorch's and NumPy's own files are archives that hold some."""
    for name, content in read_outputs(finished_small).items():
        assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK", b"\x93NUM")), name
