"""The reports for upstream show what they say, with the versions that are installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

REPORTS = sorted((ROOT / "docs" / "upstream").glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.stem)
def test_a_report_can_be_seen(report: Path, tmp_path: Path) -> None:
    text = report.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (printed,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    command = [sys.executable, "-c", code]
    output = ""
    for backend in re.findall(r"KERAS_BACKEND=(\w+)", text) or ["tensorflow"]:
        environment = os.environ | {"KERAS_BACKEND": backend}
        done = subprocess.run(
            command, check=True, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, timeout=120
        )
        output += done.stdout

    assert output == printed
