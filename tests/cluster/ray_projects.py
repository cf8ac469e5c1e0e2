"""What projects on Ray read and write, and the processes that work for them."""

import contextlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LOSSES = {"train-torch": "losses/pytorch.json", "train-keras": "losses/keras.json"}


def write_random_ratings(folder: Path, files: int, rows: int) -> None:
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(files):
        ids = {name: random.integers(0, count, rows) for name, count in (("user_id", 10**6), ("book_id", 10**4))}
        table = pa.table(ids | {"rating": random.integers(1, 6, rows)})
        pq.write_table(table, folder / f"{number}.parquet")


def runs_task(pid: int, task: bytes = b"train_slices") -> bool:
    """Whether a process is a worker of Ray's that trains, or does something else."""
    with contextlib.suppress(OSError):  # it has ended meanwhile
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return command.startswith(b"ray::") and task in command
    return False
