"""The ablation's plan and arithmetic, and the whole of it on few ratings."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablation.curves import Curves
from ablation.effects import to_table, warn_of_chance
from ablation.estimates import Effects, Estimate, find_effects, rank_conventions, share_of
from ablation.plan import CONVENTIONS, Framework, plan_alone, plan_path
from ablation.runs import STAGE, code_files
from stages.training.losses import Epoch, LossCurve
from tests.imports import imported_files, is_only_a_docstring
from tests.processes import Start, handles_sigterm, is_running, on_linux, processor_seconds, wait_until
from tests.project import copy_project, dvc, edit_params, keep_ratings, run, stages_run

ORDER = sorted(CONVENTIONS)
SEEDS = 3


def random_curves(names: list[str], seed: int) -> Curves:
    random = np.random.default_rng(seed)
    return {
        name: [LossCurve([Epoch(epoch, 1.0, float(random.normal(1, 0.1))) for epoch in (1, 2)]) for _ in range(SEEDS)]
        for name in names
    }


@pytest.fixture
def curves() -> tuple[Curves, Curves, Curves]:
    alone = [kind.name for kind in plan_alone("pytorch")]
    return random_curves(alone, 1), random_curves(alone, 2), random_curves([kind.name for kind in plan_path(ORDER)], 3)


@pytest.mark.parametrize(("framework", "own", "other"), [("pytorch", "torch", "keras"), ("keras", "keras", "torch")])
def test_each_convention_is_switched_alone(framework: str, own: str, other: str) -> None:
    plan = {kind.name: kind.conventions for kind in plan_alone(framework)}  # type: ignore[arg-type]

    assert set(plan["native"].values()) == {"native"}
    assert set(plan["own"].values()) == {own}
    assert set(plan["other"].values()) == {other}
    for name in CONVENTIONS:
        assert plan[f"alone:{name}"] == {**plan["own"], name: other}


@pytest.mark.parametrize("framework", ["pytorch", "keras"])
def test_a_finished_training_is_kept_under_the_code_that_made_it(framework: Framework) -> None:
    needed = imported_files(f"stages.{STAGE[framework].replace('-', '_')}")

    counted = {str(file) for file in code_files(framework)}
    assert {name for name in needed - counted if not is_only_a_docstring(name)} == set()
    assert "stages/pictures.py" not in counted


def test_the_path_switches_one_more_at_each_step() -> None:
    path = [kind.conventions for kind in plan_path(ORDER)]

    assert [list(step.values()).count("keras") for step in path] == [1, 2, 3, 4, 5]
    for step, name in zip(path, ORDER, strict=False):
        assert step[name] == "keras"


def test_the_first_step_of_the_path_is_a_training_that_was_done_before() -> None:
    (alone,) = [kind for kind in plan_alone("pytorch") if kind.name == f"alone:{ORDER[0]}"]

    assert plan_path(ORDER)[0].conventions == alone.conventions


@pytest.mark.parametrize("epoch", ["best_epoch", "last_epoch"])
def test_the_parts_add_up_to_the_gap(curves: tuple[Curves, Curves, Curves], epoch: str) -> None:
    found = find_effects(*curves, ORDER, epoch)

    assert sum(part.mean for part in found.parts.values()) == pytest.approx(found.gap.mean)
    assert sum(share.mean for share in found.share.values()) == pytest.approx(1)
    assert found.gap.mean == pytest.approx(found.pytorch.mean - found.keras.mean)


def test_the_interval_is_students_of_the_differences(curves: tuple[Curves, Curves, Curves]) -> None:
    pytorch, keras, _ = curves
    differences = [
        left.epochs[-1].val_loss - right.epochs[-1].val_loss
        for left, right in zip(pytorch["own"], keras["own"], strict=True)
    ]
    found = find_effects(*curves, ORDER, "last_epoch")

    students = stats.t.interval(0.95, SEEDS - 1, np.mean(differences), stats.sem(differences))
    assert [found.gap.mean - found.gap.margin, found.gap.mean + found.gap.margin] == pytest.approx(students)


def test_a_share_that_is_the_same_for_each_seed_has_no_error() -> None:
    gap = pd.Series([0.1, 0.2, 0.4])

    share = share_of(0.25 * gap, gap)
    assert share.mean == pytest.approx(0.25)
    assert share.margin == pytest.approx(0)
    assert share_of(pd.Series([0.1, 0.1, 0.1]), gap).margin > 0


def test_the_largest_effect_comes_first(curves: tuple[Curves, Curves, Curves]) -> None:
    pytorch = curves[0]
    pytorch["alone:dense_init"] = [LossCurve([Epoch(1, 1.0, 9.0)]) for _ in range(SEEDS)]  # a loss can grow, too

    assert rank_conventions(pytorch)[0] == "dense_init"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with few ratings, in float64, one epoch and two seeds."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    keep_ratings(project, 3000)
    edit_params(project, "epochs: 5", "epochs: 1")
    edit_params(project, "precision: float32 ", "precision: float64 ")
    file = project / "ablation" / "params.yaml"
    file.write_text(file.read_text().replace("seeds: 5", "seeds: 2"))
    return project


def test_the_whole_ablation_closes_the_gap(project: Path) -> None:
    output = dvc(project, "repro", "ablation/dvc.yaml")
    effects = json.loads((project / "ablation" / "effects.json").read_text())

    for of_epoch in effects.values():
        shares = of_epoch["share"]
        assert sum(share["mean"] for share in shares.values()) == pytest.approx(1)
        assert {*shares} == {*CONVENTIONS, "remainder"}
        assert abs(shares["remainder"]["mean"]) < 1e-8
        assert shares["embedding_init"]["margin"] > 0
    assert "10 trainings, 2 of them finished before" in output, "the path's first step was trained alone before"
    for picture in ("waterfall.png", "path.png"):
        assert (project / "ablation" / picture).read_bytes().startswith(b"\x89PNG")
    assert stages_run(dvc(project, "repro", "ablation/dvc.yaml")) == []


def alone_command(framework: Framework, curves: Path) -> list[str]:
    """What DVC runs for one framework's trainings, with another file to write."""
    return [
        *(sys.executable, "-m", "ablation.train_alone", "--framework", framework),
        *("--params", "params.yaml", "--ablation-params", "ablation/params.yaml"),
        *("--train", "data/train.parquet", "--validation", "data/validation.parquet"),
        *("--curves", str(curves)),
    ]


def test_an_interrupted_ablation_goes_on_where_it_stopped(project: Path, tmp_path: Path) -> None:
    dvc(project, "repro", "split")
    edit_params(project, "learning_rate: 0.001\n", "learning_rate: 0.002\n")
    arguments = alone_command("pytorch", tmp_path / "curves.json")
    running = subprocess.Popen(arguments, cwd=project, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for line in running.stdout:
        if re.match(r" +2 of 18 ", line):
            break
    running.send_signal(signal.SIGINT)
    running.stdout.read()
    assert running.wait(30) == 128 + signal.SIGINT
    assert not (tmp_path / "curves.json").exists()

    again = subprocess.run(arguments, cwd=project, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.search(r"18 trainings, (\d+) of them finished before", again)
    assert found is not None
    assert 2 <= int(found[1]) < 18
    assert len(json.loads((tmp_path / "curves.json").read_text())) == 9


def test_the_cost_of_one_order_is_measured(project: Path) -> None:
    output = run(project, sys.executable, "-m", "ablation.shuffle", "--params", "params.yaml", "--seeds", "2").stdout

    rows = re.findall(
        r"^(a fresh order each epoch|fit\(shuffle=True\), seeded) +[\d.]+ ± [\d.]+$", output, re.MULTILINE
    )
    assert len(rows) == 2


def test_the_table_names_every_part(curves: tuple[Curves, Curves, Curves]) -> None:
    found: Effects = find_effects(*curves, ORDER, "best_epoch")

    table = to_table(found)
    for name in (*CONVENTIONS, "remainder", "gap", "own draws"):
        assert name in table


def test_few_seeds_are_said_to_be_too_few_where_they_are(curves: tuple[Curves, Curves, Curves]) -> None:
    effects = find_effects(*curves, ORDER, "best_epoch")
    sure = replace(effects, share={name: Estimate(share.mean, 0.009) for name, share in effects.share.items()})

    assert f"± {100 * max(share.margin for share in effects.share.values()):.1f} %; more seeds" in warn_of_chance(
        effects
    )
    assert warn_of_chance(sure) == ""


@on_linux
@pytest.mark.parametrize("seconds", [0, 0.2, 0.4, 1])
def test_ctrl_c_while_the_ablation_starts_shows_no_traceback(
    project: Path, tmp_path: Path, start: Start, seconds: float
) -> None:
    """As a terminal sends it: to the stage and to its training processes."""
    dvc(project, "repro", "split")
    running = start(project, *alone_command("keras", tmp_path / "curves.json"))
    wait_until(lambda: handles_sigterm(running.process.pid), 30)
    time.sleep(seconds)
    os.killpg(running.process.pid, signal.SIGINT)

    assert running.process.wait(30) == 128 + signal.SIGINT
    assert "stopped by SIGINT" in running.output
    assert "Traceback" not in running.output
    assert "leaked" not in running.output


@on_linux
def test_the_trainings_end_with_their_stage(project: Path, tmp_path: Path, start: Start) -> None:
    """Even where a `kill -9` leaves it no time to end them."""
    project = Path(shutil.copytree(project, tmp_path / "project", symlinks=True))
    dvc(project, "repro", "split")
    edit_params(project, "epochs: 1\n", "epochs: 1000000\n")
    running = start(project, *alone_command("pytorch", tmp_path / "curves.json"))
    # Loading takes two seconds of the processor's time: one that has used more trains.
    wait_until(lambda: any(processor_seconds(pid) > 4 for pid in running.descendants()), 120)
    processes = running.descendants()
    running.process.kill()

    wait_until(lambda: not any(is_running(pid) for pid in processes), 30)
