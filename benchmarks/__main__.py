"""Measure how fast the project is, and print and keep the tables: `python -m benchmarks --help`."""

import argparse
import importlib
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
from benchmarks.measure import WIDTH
from benchmarks.processes import ROOT
from benchmarks.scale import SCALES

GROUPS = ["torch_epochs", "keras_epochs", "growth", "preparation", "peers"]


def main() -> None:
    """Run each group in a process of its own, one after the other; what was measured is written at once."""
    arguments = parse_arguments()
    if arguments.write_group:
        write_group(arguments.only[0], arguments.scale, arguments.work, arguments.write_group)
        return
    result: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        # Files by their names: what folders this machine has is nobody's business.
        "command": shlex.join(["python", "-m", "benchmarks", *(Path(word).name for word in sys.argv[1:])]),
        "scale": arguments.scale,
        "machine": describe_machine(),
        "versions": list_versions(),
        "tables": {},
        "failed": [],
    }
    described = {**result["machine"], **result["versions"]}
    print(textwrap.fill(", ".join(f"{name} {value}" for name, value in described.items()), WIDTH), flush=True)
    write_result(arguments.output, result)  # a file that can't be written says so before, not after
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for group in arguments.only or GROUPS:
            try:
                result["tables"][group] = measure(group, arguments, work)
            except Exception as error:  # whatever it is, the other groups go on
                result["failed"].append(group)
                print(f"\n{group} failed: {error}", flush=True)
            write_result(arguments.output, result)
    if result["failed"]:
        sys.exit(f"failed: {', '.join(result['failed'])}")


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
    parser.add_argument("--write-group", type=Path, help=argparse.SUPPRESS)  # a group's own process
    return parser.parse_args()


def measure(group: str, arguments: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """A group's tables, measured and printed by an interpreter that has loaded nothing else."""
    python, folder, output = sys.executable, work, work / f"{group}.json"
    if group == "peers":
        from benchmarks.ratings import simulate, split_ratings  # not for the peers' Python: it lacks what these need

        file = arguments.ratings or simulate(work, SCALES[arguments.scale].peers_users)
        split_ratings(work, file)
        python, folder = arguments.peers_python, work / file.stem
    options = [f"--scale={arguments.scale}", f"--work={folder}", f"--write-group={output}"]
    subprocess.run(
        [python, "-m", "benchmarks", "--only", group, *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    tables: list[dict[str, Any]] = json.loads(output.read_text(encoding="utf-8"))
    return tables


def write_group(group: str, scale: str, work: Path, output: Path) -> None:
    """Measure one group in this process; print its tables, and write them as JSON."""
    tables = importlib.import_module(f"benchmarks.{group}").measure(SCALES[scale], work)
    for table in tables:
        print(f"\n{table}", flush=True)
    output.write_text(json.dumps([table.as_json() for table in tables]), encoding="utf-8")


def write_result(output: Path | None, result: dict[str, Any]) -> None:
    """Write what there is so far, if a file is asked for."""
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
