"""prepare-ratings and split against merely reading the file and writing the table, by the number of ratings."""

import sys
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.measure import Cell, Spread, Table, ratio
from benchmarks.processes import Finished, run
from benchmarks.ratings import prepare_command, simulate, split_command, write_params
from benchmarks.scale import Scale

READ_AND_WRITE = """
import sys, pyarrow.csv, pyarrow.parquet
pyarrow.parquet.write_table(pyarrow.csv.read_csv(sys.argv[1]), sys.argv[2], compression="zstd")
"""


def measure(scale: Scale, work: Path) -> list[Table]:
    """Time and peak memory of each, in processes of their own: start-up counts."""
    rows: list[list[Cell]] = []
    first: dict[str, float] = {}
    for users in scale.table_users:
        file = simulate(work, users)
        folder = work / f"prepared-{users}"
        folder.mkdir(exist_ok=True)
        write_params(folder, file)
        commands = {
            "pyarrow": [sys.executable, "-c", READ_AND_WRITE, str(file), str(folder / "bare.parquet")],
            "prepare-ratings": prepare_command(folder),
            "split": split_command(folder),
        }
        finished: dict[str, list[Finished]] = {name: [] for name in commands}
        for _ in range(scale.process_rounds):
            for name, command in commands.items():
                finished[name].append(run(command))
        count = pq.read_metadata(folder / "bare.parquet").num_rows
        bare = [process.cpu_seconds for process in finished["pyarrow"]]
        for name, processes in finished.items():
            seconds = [process.cpu_seconds for process in processes]
            per_rating = Spread.of(seconds).median / count
            first.setdefault(name, per_rating)
            rows.append(
                [
                    count,
                    name,
                    Spread.of(seconds),
                    ratio(seconds, bare),
                    per_rating / first[name],
                    round(Spread.of(process.peak_megabytes for process in processes).median),
                ]
            )
    return [
        Table(
            "prepare-ratings and split against pyarrow's read_csv and write_table",
            ["ratings", "process", "CPU s", "over pyarrow", "growth", "MB"],
            rows,
            "Growth: seconds a rating over those with the fewest, 1 is linear; starting up counts. MB: peak memory.",
        )
    ]
