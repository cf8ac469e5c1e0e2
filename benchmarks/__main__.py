"""Measure how fast the project is, and print and keep the tables: `python -m benchmarks --help`."""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, list_versions
from benchmarks.measure import WIDTH, Table
from benchmarks.processes import ROOT
from benchmarks.ratings import simulate, split_ratings
from benchmarks.scale import SCALES

GROUPS = ["torch_epochs", "keras_epochs", "growth", "preparation", "startup", "threads", "peers"]
SLOW = ["growth", "threads"]
"""Groups of the full scale only, unless they are asked for."""


def main() -> None:
    """Run each group in a process of its own, one after the other."""
    arguments = parse_arguments()
    result: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        # Files by their names: what folders this machine has is nobody's business.
        "command": shlex.join(["python", "-m", "benchmarks", *(Path(word).name for word in sys.argv[1:])]),
        "scale": arguments.scale,
        "machine": describe_machine(),
        "versions": list_versions(),
        "tables": {},
    }
    described = {**result["machine"], **result["versions"]}
    print(textwrap.fill(", ".join(f"{name} {value}" for name, value in described.items()), WIDTH))
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for group in arguments.only or [name for name in GROUPS if arguments.scale == "full" or name not in SLOW]:
            result["tables"][group] = measure(group, arguments, work.resolve())
            for table in result["tables"][group]:
                print(f"\n{Table.of(table)}", flush=True)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """What to measure, and where to put it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--quick", dest="scale", action="store_const", const="quick", help="under two minutes")
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"some of: {', '.join(GROUPS)}")
    parser.add_argument("--output", type=Path, help="the tables as JSON, to write")
    parser.add_argument("--work", type=Path, help="a folder for simulated ratings, kept for the next run")
    parser.add_argument("--ratings", type=Path, help="what the peers are fitted to; otherwise it is simulated")
    parser.add_argument("--peers-python", default=sys.executable, help="the Python that has the peers installed")
    return parser.parse_args()


def measure(group: str, arguments: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """A group's tables, measured in an interpreter that has loaded nothing else."""
    python, folder = sys.executable, work
    if group == "peers":
        file = arguments.ratings or simulate(work, SCALES[arguments.scale].peers_users)
        split_ratings(work, file)
        python, folder = arguments.peers_python, work / file.stem
    output = work / f"{group}.json"
    subprocess.run(
        [python, "-m", "benchmarks.group", group, arguments.scale, str(folder), str(output)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    tables: list[dict[str, Any]] = json.loads(output.read_text(encoding="utf-8"))
    return tables


if __name__ == "__main__":
    main()
