"""Where a step's time goes, operation by operation: `python -m benchmarks.profiles torch|keras [BATCH_SIZE]`.

Both epochs of a framework, the tutorials' and the project's. Only an operation's own time counts, not that of others
inside it; what the operations leave of the step is spent between them: in Python, in queues, in allocating.
"""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.epochs import Epoch, Framework
from benchmarks.growth import draw_ratings
from benchmarks.measure import Cell, Spread, Table
from benchmarks.ratings import change_params

USERS, LISTED, ROUNDS = 53_424, 14, 5
STEPS = {"torch": 16, "keras": 128}
"""PyTorch's profiler keeps what each row of a DataLoader does: more than a few steps would take minutes."""


def profile_torch(epoch: Epoch) -> Counter[str]:
    """The microseconds of each operation."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        epoch()
    return Counter({event.key: round(event.self_cpu_time_total) for event in profiler.key_averages()})


def profile_tensorflow(epoch: Epoch) -> Counter[str]:
    """The microseconds of each kernel: an event that is named "node:kind"."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            epoch()
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    microseconds: Counter[str] = Counter()
    for plane in space.planes:
        names = {number: metadata.name for number, metadata in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                node, _, kind = names[event.metadata_id].rpartition(":")
                if kind.isidentifier() and node and not node.endswith(":"):  # "::" stands in names of C++
                    microseconds[kind] += event.duration_ps // 1_000_000
    return microseconds


def report(name: str, epoch: Epoch, steps: int, profile: Callable[[Epoch], Counter[str]]) -> Table:
    """The longest operations of a step."""
    epoch()
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        epoch()
        seconds.append(time.process_time() - start)
    step = 1e6 * Spread.of(seconds).median / steps
    microseconds = profile(epoch)
    total = sum(microseconds.values()) / steps
    rows: list[list[Cell]] = [[kind, round(value / steps)] for kind, value in microseconds.most_common(LISTED)]
    return Table(
        f"{name}: {step:,.0f} µs a step without the profiler, {total:,.0f} µs in operations with it",
        ["operation", "µs/step"],
        rows,
    )


def main() -> None:
    """Profile one framework at one size of batch."""
    name, *sizes = sys.argv[1:]
    batch_size = int(sizes[0]) if sizes else 1024
    profile: Callable[[Epoch], Counter[str]]
    framework: Framework
    if name == "torch":
        from benchmarks.torch_epochs import FRAMEWORK as framework  # noqa: N811

        profile = profile_torch
    else:
        from benchmarks.keras_epochs import FRAMEWORK as framework  # noqa: N811

        profile = profile_tensorflow
    params = change_params(embedding_dim=5, batch_size=batch_size)
    ratings = draw_ratings(USERS, STEPS[name] * batch_size)
    for title, make_epoch in (
        (framework.tutorial, framework.make_tutorial_epoch),
        (framework.stage, framework.make_epoch),
    ):
        print(f"{report(title, make_epoch(params, ratings, ratings), STEPS[name], profile)}\n")


if __name__ == "__main__":
    main()
