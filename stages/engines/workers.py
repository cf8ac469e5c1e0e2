"""What the workers of one training tell each other at each step: the rows that each looked up, and their gradients.

Every worker has all weights and takes its slice of each batch. A table's gradient has a row for each look-up, and only
those rows travel: so the bytes of a step grow with the batch, not with the tables. They arrive in the order of the
batch, as if one process had looked all of them up: so each worker's optimiser then makes the step that one process
would have made. The dense layers' gradients, which are small, are added up.

It goes through Gloo, PyTorch's own way between CPUs (https://github.com/pytorch/gloo), for Keras too. Whoever listens
on a port does so at the node's own address: on a cluster of one machine that is loopback. Where each worker can be
reached, the workers tell each other through a Ray actor: PyTorch's own store for that would listen on all addresses.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

SILENCE = timedelta(minutes=5)
"""How long a worker waits for the others at one step: they may evaluate meanwhile, but not for longer."""


class WorkerLostError(Exception):
    """A worker has ended, or the network between two of them."""


class LookUps(NamedTuple):
    """The gradient of a table, with a row for each look-up; one row of the table may be there several times."""

    rows: Tensor
    """(look-ups,)"""
    gradients: Tensor
    """(look-ups, dim)"""


Gradient: TypeAlias = LookUps | Tensor


class Workers:
    """All workers of a training, seen from one of them.

    Attributes:
        rank: the number of this one, from 0.
        count: how many there are.
        sent: the bytes that this one has handed over for the others.
        lost: whether one of the others can't be reached any more.
    """

    def __init__(self, rank: int, count: int, address: str, meeting: Any) -> None:
        self.rank, self.count, self.sent, self.lost = rank, count, 0, False
        self._weights: Iterator[float] = iter(())
        """The part that this worker's slice is of each batch to come."""
        self._longest = 0
        """The most rows of a slice."""
        gloo: Any = dist.ProcessGroupGloo  # it has no types
        options = gloo._Options()
        options._timeout, options._devices = SILENCE, [gloo.create_device(hostname=address)]
        with self._others():
            self._gloo = gloo(_Store(meeting), rank, count, options)

    def slice_of(self, rows: int) -> range:
        """This worker's slice of a batch of so many rows; the first workers have a row more, where it must be."""
        each, more = divmod(rows, self.count)
        start = self.rank * each + min(self.rank, more)
        return range(start, start + each + (self.rank < more))

    def begin(self, sizes: list[int]) -> None:
        """Get ready for batches of so many rows."""
        self._longest = -(-max(sizes) // self.count)
        self._weights = iter([len(self.slice_of(size)) / size for size in sizes])

    def exchange(self, gradients: Sequence[Gradient]) -> list[Gradient]:
        """From the gradients of the mean loss of this worker's slice to those of the mean loss of the batch."""
        weight = next(self._weights)
        tables = [gradient for gradient in gradients if isinstance(gradient, LookUps)]
        dense = [gradient for gradient in gradients if not isinstance(gradient, LookUps)]
        look_ups = iter(self._gather(tables, weight))
        summed = self.sum(torch.cat([gradient.flatten() for gradient in dense]) * weight)
        others = iter(summed.split([gradient.numel() for gradient in dense]))
        return [
            next(look_ups) if isinstance(gradient, LookUps) else next(others).view(gradient.shape)
            for gradient in gradients
        ]

    def _gather(self, tables: list[LookUps], weight: float) -> list[LookUps]:
        """The look-ups of all workers, in the workers' order."""
        precision = tables[0].gradients.dtype
        numbers = torch.int32 if precision == torch.float32 else torch.int64  # of one width, and nobody touches bits
        columns = []
        for rows, gradients in tables:
            columns += [rows.to(numbers).unsqueeze(1), (gradients * weight).view(numbers)]
        own = torch.cat(columns, 1)
        padded = own.new_zeros(self._longest, own.shape[1])  # row 0 with a gradient of 0 changes nothing
        padded[: len(own)] = own
        everyone = [torch.empty_like(padded) for _ in range(self.count)]
        with self._others():
            self._gloo.allgather([everyone], [padded]).wait()
        self.sent += padded.nbytes * (self.count - 1)
        parts = torch.cat(everyone).split([column.shape[1] for column in columns], 1)
        return [
            LookUps(rows.squeeze(1).long(), gradients.contiguous().view(precision))
            for rows, gradients in zip(parts[::2], parts[1::2], strict=True)
        ]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all workers, the same bits for each of them; replaces `values`."""
        with self._others():
            self._gloo.allreduce([values]).wait()
        self.sent += 2 * values.nbytes * (self.count - 1) // self.count
        return values

    @contextlib.contextmanager
    def _others(self) -> Iterator[None]:
        """Tell a failure of another worker from one's own."""
        try:
            yield
        except RuntimeError as error:
            self.lost = True
            raise WorkerLostError(str(error)) from error


class _Store(dist.Store):  # type: ignore[name-defined, misc]  # it has no types
    """Where the workers find out each other's address; `meeting` is a Ray actor that holds what they say."""

    def __init__(self, meeting: Any) -> None:
        import ray

        super().__init__()
        self._meeting, self._ask = meeting, ray.get

    def set(self, key: str, value: bytes) -> None:
        """Say something."""
        self._ask(self._meeting.set.remote(key, bytes(value)))

    def get(self, key: str) -> bytes:
        """Wait until it was said."""
        deadline = time.monotonic() + SILENCE.total_seconds()
        while (value := self._ask(self._meeting.get.remote(key))) is None:
            if time.monotonic() > deadline:
                raise WorkerLostError("another worker hasn't come")
            time.sleep(0.02)
        return bytes(value)

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Wait until all of these were said."""
        for key in keys:
            self.get(key)
