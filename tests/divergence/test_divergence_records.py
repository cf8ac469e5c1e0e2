"""Record files: what a program writes itself, what is no record, and two that a mapping pairs."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from divergence.__main__ import describe, main
from divergence.comparison import Comparison, relations
from divergence.record import RecordError, read_record
from divergence.walk import Row, Walk, walk
from tests.divergence.programs import Program, adam
from tests.project import ROOT, run


def test_a_pair_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, same = (str(Program().run(tmp_path / name)) for name in ("one.npz", "same.safetensors"))
    other = str(Program(optimizer=adam()).run(tmp_path / "other.npz"))

    assert main([one, same]) == 0
    assert "They agree in all that was recorded." in capsys.readouterr().out
    assert main([one, other]) == 1
    output = capsys.readouterr().out
    assert "They part first at step 1, step:" in output
    assert "here   SGD" in output
    assert "there  Adam" in output


def test_the_command_loads_no_framework(tmp_path: Path) -> None:
    one = str(Program().run(tmp_path / "one.npz"))
    frameworks = "{'torch', 'keras', 'tensorflow', 'jax'}"
    code = (
        f"import sys; from divergence.__main__ import main; main([{one!r}] * 2); print({frameworks} & {{*sys.modules}})"
    )

    assert run(ROOT, sys.executable, "-c", code).stdout.endswith("set()\n")


@pytest.mark.slow
def test_a_program_without_an_adapter_writes_its_own_record(tmp_path: Path) -> None:
    """Arrays by name in an .npz file, and nothing else: NumPy's own network of one layer."""
    random = np.random.default_rng(0)
    rows, target = random.normal(size=(32, 4)), random.normal(size=(32, 2))
    for name, momentum in (("one.npz", 0.0), ("other.npz", 0.9)):
        weight, velocity = np.eye(4)[:, :2], np.zeros((4, 2))
        arrays: dict[str, Any] = {}
        for step in (1, 2, 3):
            output = rows @ weight
            gradient = 2 * rows.T @ (output - target) / target.size
            arrays |= {f"{step}/weights/w": weight, f"{step}/batch/x": rows, f"{step}/batch/target": target}
            arrays |= {f"{step}/output/y": output, f"{step}/loss": np.mean((output - target) ** 2)}
            velocity = momentum * velocity + gradient
            weight = weight - 0.05 * velocity
            arrays |= {f"{step}/gradients/w": gradient, f"{step}/after/w": weight}
        np.savez(tmp_path / name, **arrays)
    found = walk(Comparison.read(tmp_path / "one.npz", tmp_path / "other.npz")).findings

    assert [(f.checkpoint, f.what, f.one, f.other) for f in found] == [("after", "momentum, for w", "0", "0.9")]


def test_inputs_in_another_order_agree(tmp_path: Path) -> None:
    users, books = np.arange(9), np.arange(9) * 5 % 7
    for name, inputs in (("one", [users, books]), ("other", [books, users])):
        arrays: dict[str, Any] = {"1/weights/w": np.ones(2), "1/batch/input": inputs[0], "1/batch/input1": inputs[1]}
        np.savez(tmp_path / f"{name}.npz", **arrays)

    assert main([str(tmp_path / "one.npz"), str(tmp_path / "other.npz")]) == 0


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"weights/w": np.ones(2)}, "isn't step/checkpoint/name"),
        ({"1/weight/w": np.ones(2)}, "with a checkpoint of weights, batch"),
        ({"2/weights/w": np.ones(2)}, "steps are counted 1, 2"),
        ({"1/loss": np.ones(())}, "no weights before the first step"),
        ({"1/weights/w": np.array(["a"])}, "holds <U1, not numbers"),
        ({"1/weights/w": np.ones(2), "1/after/w": np.ones(3)}, "'1/after/w' (3,) isn't as a weight before it"),
        ({"1/weights/w": np.ones(2), "1/clipped/v": np.ones(2)}, "'1/clipped/v' (2,) isn't as a weight before it"),
        ({"1/weights/w": np.ones(2), "settings": np.array('{"layers": [1]}')}, "its settings are no object"),
        ({"1/weights/w": np.ones(2), "settings": np.array('{"layers": {"l": {"weights": ["w"]}}}')}, "no object"),
        ({"1/weights/w": np.ones(2), "settings": np.array('{"optimizer": {"eps": "tiny"}}')}, "of words and numbers"),
        ({"1/weights/w": np.ones(2), "settings": np.array('{"optimizer": {"betas": null}}')}, "of words and numbers"),
    ],
)
def test_what_is_no_record_is_named(
    arrays: dict[str, Any], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "one.npz", **arrays)
    good = str(Program().run(tmp_path / "good.npz"))

    assert main([str(tmp_path / "one.npz"), good]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert complaint in error
    for missing in ("none.npz", "none.safetensors"):
        assert main([good, str(tmp_path / missing)]) == 2
        assert "no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_a_mapping_pairs_what_names_and_shapes_do_not(tmp_path: Path) -> None:
    same, swapped = Program(), {"first.bias": "hidden.b", "last.weight": "out.w"}
    one = read_record(same.run(tmp_path / "one.npz"))
    renamed = {"first.weight": "a", "first.bias": "b", "last.weight": "c", "last.bias": "d", "table.weight": "e"}
    arrays = {
        f"{number}/{checkpoint}/{renamed.get(name, name)}": array
        for number, step in enumerate(one.steps, start=1)
        for checkpoint, of in step.items()
        for name, array in of.items()
    }
    np.savez(tmp_path / "other.npz", allow_pickle=False, **arrays)
    other = read_record(tmp_path / "other.npz")

    assert not walk(Comparison.of(one, other)).findings, "the values tell"
    pairs = Comparison.of(one, other, renamed).pairs
    assert {pair.one: pair.other for pair in pairs} == renamed
    files = [str(tmp_path / name) for name in ("one.npz", "other.npz")]
    (tmp_path / "names.json").write_text(json.dumps(renamed))
    assert main([*files, "--mapping", str(tmp_path / "names.json")]) == 0
    with pytest.raises(RecordError, match=r"hidden\.b, out\.w"):
        Comparison.of(one, other, swapped)


def test_a_mapping_of_two_shapes_is_refused(tmp_path: Path) -> None:
    path = Program().run(tmp_path / "one.npz")

    with pytest.raises(RecordError, match=r"the mapping pairs first\.weight \(30, 10\) with last\.weight \(4, 30\)"):
        Comparison.read(path, path, {"first.weight": "last.weight"})


def test_what_one_record_lacks_is_not_compared(tmp_path: Path) -> None:
    path = Program().run(tmp_path / "one.npz")
    with np.load(path) as arrays:
        np.savez(tmp_path / "other.npz", **{name: arrays[name] for name in arrays if "/batch/" not in name})

    assert walk(Comparison.read(path, tmp_path / "other.npz")).findings == []


def test_ids_as_floats_are_named(tmp_path: Path) -> None:
    """Where the program writes the record itself: PyTorch's and Keras's own tables take none."""
    path = Program().run(tmp_path / "one.npz")
    with np.load(path) as arrays:
        floats = {
            name: arrays[name].astype(float) if name.endswith("/batch/input") else arrays[name] for name in arrays
        }
    np.savez(tmp_path / "other.npz", allow_pickle=False, **floats)
    (found,) = walk(Comparison.read(path, tmp_path / "other.npz")).findings

    assert (found.checkpoint, found.what, found.one, found.other) == ("batch", "type, for input", "int64", "float64")
    assert any("float32 holds all to 16,777,216" in line for line in found.evidence)


def test_numbers_that_are_not_finite_bring_no_warnings(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for path, values in ((tmp_path / "one.npz", (np.nan, np.inf)), (tmp_path / "other.npz", (1.0, 1.0))):
        arrays: Any = {f"1/weights/{name}": np.full((4, 4), value) for name, value in zip("ab", values, strict=True)}
        np.savez(path, **arrays)

    assert main([str(tmp_path / "one.npz"), str(tmp_path / "other.npz")]) in (0, 1)
    assert not recwarn.list


def test_arrays_of_other_shapes_have_no_largest_difference(tmp_path: Path) -> None:
    record = read_record(Program().run(tmp_path / "one.npz"))
    text = describe(Comparison.of(record, record), Walk([Row(1, "batch", 1, 1, np.inf, "own")], [], None, []))

    assert "inf" not in text


def test_time_before_examples_is_another_shape() -> None:
    """As of recurrent layers, where PyTorch has time first and Keras the examples."""
    assert [*relations(np.ones((10, 32, 8)), np.ones((32, 10, 8)), 1e-5)] == [
        "the shapes are (10, 32, 8) and (32, 10, 8)"
    ]
