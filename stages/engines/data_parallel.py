"""A training on several workers of a Ray cluster: the losses of one process, but for rounding.

Every worker runs the same `fit` on the same rows in the same order, with a trainer that trains on a slice of each batch
and evaluates a part of the rows; `stages.engines.workers` makes one step of their steps. The stage's process watches:
the first worker tells it of each epoch's end, with all that is needed to go on from there. So when a worker is lost,
all begin again after the last whole epoch, and no other computer has to keep a file for that.

Why not Ray Train, which would do the same: it keeps checkpoints in a folder that all computers share, it asks Ray's
dashboard who is alive, and it adds half a minute and six processes to each stage (Ray 2.60, two workers on two cores).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stages.engines.both import load_triton_first
from stages.engines.cluster import connect, require_processors, result_of
from stages.engines.workers import WorkerLostError, Workers
from stages.program.errors import StageError
from stages.program.params import Params
from stages.ratings.table import Ratings
from stages.training.fit import MakeTrainer, Progress, Trained, Weights, fit

POLL = 0.2
"""How often to look for news of the workers, in seconds."""
LAST_WORDS = 10
"""How long to wait, once a worker has failed, for what the others say of it, in seconds."""
MAX_LOSSES = 3
"""How often workers may be lost in one epoch."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on after an epoch."""

    progress: Progress
    weights: Weights
    optimizer_state: Weights


News = str | Checkpoint


class Meeting:
    """A Ray actor where the workers find each other, and the stage's process its news of them."""

    def __init__(self) -> None:
        self._said: dict[str, bytes] = {}
        self._news: list[News] = []

    def set(self, key: str, value: bytes) -> None:
        """Say something to the other workers."""
        self._said[key] = value

    def get(self, key: str) -> bytes | None:
        """What was said, if it was."""
        return self._said.get(key)

    def tell(self, news: News) -> None:
        """Tell the stage's process."""
        self._news.append(news)

    def listen(self) -> list[News]:
        """What is new to the stage's process."""
        news, self._news = self._news, []
        return news


class SlicedTrainer:
    """A trainer that does its worker's part, and answers for all of them."""

    def __init__(self, make_trainer: MakeTrainer, params: Params, training: Ratings, workers: Workers) -> None:
        self._workers, self._batch_size = workers, params.train.batch_size
        of_slices = params.train.model_copy(update={"batch_size": len(workers.slice_of(self._batch_size))})
        self._trainer = trainer = make_trainer(params.model_copy(update={"train": of_slices}), training, workers)
        self.describe, self.save = trainer.describe, trainer.save
        self.get_weights, self.set_weights = trainer.get_weights, trainer.set_weights
        self.get_optimizer_state, self.set_optimizer_state = trainer.get_optimizer_state, trainer.set_optimizer_state

    def train_one_epoch(self, rows: Ratings, epoch: int) -> float:
        """Train on this worker's slice of each batch; the mean of all examples' losses as they were then."""
        starts = range(0, len(rows), self._batch_size)
        sizes = [min(self._batch_size, len(rows) - start) for start in starts]
        slices = [self._workers.slice_of(size) for size in sizes]
        own = np.concatenate([start + np.array(slice_, np.intp) for start, slice_ in zip(starts, slices, strict=True)])
        self._workers.begin(sizes)
        squares = self._trainer.train_one_epoch(rows[own], epoch) * len(own)
        if not slices[-1]:
            self._trainer.train_one_epoch(rows[:1], epoch)  # any row, with a weight of 0: the others need every worker
        return self._sum(squares) / len(rows)

    def evaluate(self, rows: Ratings) -> float:
        """The mean squared error over all rows."""
        own = rows[np.array(self._workers.slice_of(len(rows)), np.intp)]
        return self._sum(self._trainer.evaluate(own) * len(own) if len(own) else 0) / len(rows)

    def _sum(self, value: float) -> float:
        return self._workers.sum(torch.tensor([value], dtype=torch.float64)).item()


def train_on_ray(make_trainer: MakeTrainer, params: Params, tables: list[Ratings]) -> Trained:
    """Train on `ray.workers` workers.

    Raises:
        StageError: what one process would raise; or there are more workers than rows in a batch, or the cluster isn't
            there, isn't large enough, or loses worker after worker.
    """
    if params.ray.workers > params.train.batch_size:
        raise StageError(
            f"params.yaml: ray.workers is {params.ray.workers}; a batch has only {params.train.batch_size} rows"
        )
    with connect(params, params.train.threads) as ray:
        exceptions = ray.exceptions
        lost: tuple[type[Exception], ...] = (WorkerLostError, exceptions.WorkerCrashedError, exceptions.NodeDiedError)
        lost += exceptions.RayActorError, exceptions.ObjectLostError
        shared, checkpoint, losses = ray.put(tables), None, 0
        while True:
            try:
                for news in _run(make_trainer, params, shared, checkpoint):
                    if isinstance(news, Trained):
                        return news
                    if isinstance(news, Checkpoint):
                        checkpoint, losses = news, 0
                        print(news.progress.curve.epochs[-1])
                    else:
                        print(news)
            except lost as error:
                losses += 1
                reached = len(checkpoint.progress.curve.epochs) if checkpoint else 0
                if losses > MAX_LOSSES:
                    reason = str(error).partition("\n")[0]
                    raise StageError(
                        f"epoch {reached + 1}: workers were lost {losses} times, the last one so: {reason}"
                    ) from error
                print(f"a worker was lost; all go on after epoch {reached}")
                require_processors(ray, params, params.train.threads)


def _run(
    make_trainer: MakeTrainer, params: Params, tables: Any, checkpoint: Checkpoint | None
) -> Iterator[News | Trained]:
    """Have all workers train; what they tell meanwhile, and at last what comes of it."""
    import ray

    meeting = ray.remote(Meeting).options(num_cpus=0).remote()
    start = ray.remote(num_cpus=params.train.threads, scheduling_strategy="SPREAD")(Process).remote
    processes = [start() for _ in range(params.ray.workers)]
    running = [
        process.train_slices.remote(make_trainer, params, tables, rank, meeting, checkpoint)
        for rank, process in enumerate(processes)
    ]
    try:
        waiting = running
        while waiting:
            done, waiting = ray.wait(waiting, timeout=POLL)
            yield from ray.get(meeting.listen.remote())
            if (error := _find_error(done)) is not None:
                done, _ = ray.wait(running, num_returns=len(running), timeout=LAST_WORDS)
                raise _find_error(done) or error
        yield ray.get(running[0])
    finally:
        for actor in (*processes, meeting):  # to cancel a task that is just ending makes Ray 2.60 abort this process
            ray.kill(actor)


class Process:
    """A Ray actor: a worker's process, which can be ended at any moment."""

    def train_slices(self, *arguments: Any) -> Trained | None:
        """As the function does."""
        return train_slices(*arguments)


def _find_error(done: list[Any]) -> Exception | None:
    """Why workers have ended: one's own error rather than that the others miss it."""
    errors: list[Exception] = []
    for task in done:
        try:
            result_of(task)
        except Exception as error:
            errors.append(error)
    return min(errors, key=lambda error: isinstance(error, WorkerLostError), default=None)


def train_slices(
    make_trainer: MakeTrainer,
    params: Params,
    tables: list[Ratings],
    rank: int,
    meeting: Any,
    checkpoint: Checkpoint | None,
) -> Trained | None:
    """What one worker does; the result comes from the first."""
    import ray

    load_triton_first()  # Gloo is PyTorch's, and Keras may load TensorFlow
    training, validation, test = tables
    workers = Workers(rank, params.ray.workers, ray.util.get_node_ip_address(), meeting)
    trainer = SlicedTrainer(make_trainer, params, training, workers)
    if checkpoint is None:
        progress = Progress()
    else:
        progress = checkpoint.progress
        trainer.set_weights(checkpoint.weights)
        trainer.set_optimizer_state(checkpoint.optimizer_state)

    def tell(news: News) -> None:
        if rank == 0:
            ray.get(meeting.tell.remote(news))

    def keep(progress: Progress) -> None:
        tell(Checkpoint(progress, trainer.get_weights(), trainer.get_optimizer_state()))

    tell(f"{trainer.describe()}, {workers.count} workers on Ray {ray.__version__}")
    try:
        curve = fit(trainer, training, validation, params.train, progress, keep)
        test_loss = trainer.evaluate(test)
    except Exception as error:
        if workers.lost:  # TensorFlow makes an error of its own of it
            raise WorkerLostError(str(error)) from None
        raise
    return Trained(curve, test_loss, trainer.save()) if rank == 0 else None
