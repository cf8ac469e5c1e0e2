"""Measure one group in this process: `python -m benchmarks.group NAME SCALE WORK OUTPUT`, as `benchmarks` calls it."""

import importlib
import json
import sys
from pathlib import Path

from benchmarks.scale import SCALES


def main() -> None:
    """Write the group's tables as JSON."""
    name, scale, work, output = sys.argv[1:]
    tables = importlib.import_module(f"benchmarks.{name}").measure(SCALES[scale], Path(work))
    Path(output).write_text(json.dumps([table.as_json() for table in tables]), encoding="utf-8")


if __name__ == "__main__":
    main()
