"""Trains what is planned, several trainings at a time, and keeps each finished one.

A finished training is a small file in ablation/cache/, named after all that it depends on. So an interrupted stage goes
on where it stopped, and a changed setting trains again only what it touches. A DVC stage for each training would do the
same, at the price of loading its framework a hundred times.
"""

import contextlib
import functools
import hashlib
import io
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import Field
from ruamel.yaml import YAML
from tqdm import tqdm

from ablation.plan import Framework, Kind
from stages.program.errors import StageError
from stages.program.params import Params, Section
from stages.program.process import end_with_parent, stop_on_signals
from stages.ratings.table import Ratings, read_ratings
from stages.training.fit import Trainer, fit
from stages.training.losses import LossCurve, read_json, write_json

CACHE = Path("ablation/cache")

STAGE: dict[Framework, str] = {"pytorch": "train-torch", "keras": "train-keras"}
"""The pipeline's stage that trains with it."""


class Ablation(Section):
    """What ablation/params.yaml says."""

    seeds: int = Field(ge=2, le=1000)
    workers: int = Field(ge=1, le=1024)


class AblationParams(Section):
    """The whole of ablation/params.yaml."""

    ablation: Ablation


@dataclass(frozen=True)
class Job:
    """One training: what for, with which settings, and the file that keeps its curve."""

    kind: Kind
    seed: int
    params: Params
    file: Path


def train_kinds(
    kinds: Sequence[Kind], params: Params, ablation: Ablation, train: Path, validation: Path, curves: Path
) -> None:
    """Train each kind from each seed, and write all curves."""
    inputs = hash_files([train, validation, *code_files(kinds[0].framework)])
    jobs = [plan_job(kind, seed, params, inputs) for kind in kinds for seed in range(ablation.seeds)]

    waiting = [job for job in jobs if not job.file.exists()]
    print(f"{len(jobs)} trainings, {len(jobs) - len(waiting)} of them finished before", flush=True)
    train_jobs(waiting, train, validation, ablation.workers)

    finished: dict[str, list[object]] = {}
    for job in jobs:
        finished.setdefault(job.kind.name, []).append(read_json(job.file))
    write_json(curves, finished)


def plan_job(kind: Kind, seed: int, params: Params, inputs: str) -> Job:
    """The training's settings, and its file, which is named after a hash of all that it depends on."""
    settings = params.model_dump()
    settings["conventions"] = {**kind.conventions}
    settings["train"]["seed"] = (params.train.seed + seed) % 2**32
    settings["keras"]["backend"], settings["torch"]["device"] = "tensorflow", "cpu"
    relevant = {section: settings[section] for section in ("model", "train", "conventions")}
    frameworks = {name: version(name) for name in ("torch", "keras", "tensorflow", "numpy")}
    identity = json.dumps([kind.framework, relevant, frameworks, inputs], sort_keys=True)
    name = hashlib.sha256(identity.encode()).hexdigest()[:24]
    return Job(kind, seed, Params.model_validate(settings), CACHE / f"{name}.json")


def hash_files(paths: Sequence[Path]) -> str:
    """A hash of what the files hold."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def code_files(framework: Framework) -> Iterator[Path]:
    """The code that a training's result depends on, as dvc.yaml lists it, in an order that is always the same."""
    stages = YAML(typ="safe").load(Path("dvc.yaml"))["stages"]
    for name in stages[STAGE[framework]]["deps"]:
        path = Path(name)
        if path.parts[0] == "stages":
            yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def train_jobs(jobs: Sequence[Job], train: Path, validation: Path, workers: int) -> None:
    """Train in worker processes, each of which loads its framework and the data once."""
    if not jobs:
        return
    # When this process is stopped, Python's own tracker removes the pool's semaphores: no reason to warn.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    context = multiprocessing.get_context("spawn")  # a fork would copy a framework's threads half-alive
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker) as pool:
        with _ignoring_interrupts():
            futures = [pool.submit(_train, job, train, validation) for job in jobs]
        try:
            with tqdm(as_completed(futures), total=len(futures), unit="training", disable=None) as finished:
                for done, future in enumerate(finished, start=1):
                    report = f"{done:>4} of {len(jobs)}  {future.result()}"
                    finished.write(report)
        except BrokenProcessPool as error:
            raise StageError(
                "a training's process has ended, perhaps for want of memory; run the stage again"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Processes started meanwhile ignore Ctrl-C from their first moment: it reaches all, and they end with this one."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _start_worker() -> None:
    stop_on_signals()
    end_with_parent()
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def _train(job: Job, train: Path, validation: Path) -> str:
    with contextlib.redirect_stdout(io.StringIO()):
        curve = _train_framework(job, _read_once(train), _read_once(validation))
    write_json(job.file, curve.to_json())
    best = curve.best
    name = f"{job.kind.framework} {job.kind.name}, seed {job.seed}"
    return f"{name}: best val_loss {best.val_loss:.5f} in epoch {best.epoch}"


_read_once = functools.cache(read_ratings)


def _train_framework(job: Job, training: Ratings, validation: Ratings) -> LossCurve:
    trainer: Trainer
    if job.kind.framework == "pytorch":
        from stages.train_torch import TorchTrainer

        trainer = TorchTrainer(job.params, training)
    else:
        from stages.train_keras import KerasTrainer

        trainer = KerasTrainer(job.params, training)
    return fit(trainer, training, validation, job.params.train)
