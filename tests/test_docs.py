"""What the documents show is so: code prints what they say, commands work as written, links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT, copy_project, keep_ratings, run

DOCUMENTS = sorted(path.relative_to(ROOT) for path in ROOT.glob("**/*.md") if not path.is_relative_to(ROOT / ".venv"))
TRUST = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
FINDINGS = re.findall(
    r"### (\d\. [^\n]+)\n.*?```python\n(.*?)```\n\n```text\n(.*?)```",
    (ROOT / "docs" / "why-the-curves-differ.md").read_text(encoding="utf-8"),
    flags=re.DOTALL,
)


@pytest.mark.slow
@pytest.mark.parametrize(("title", "code", "printed"), FINDINGS, ids=[finding[0] for finding in FINDINGS])
def test_a_finding_can_be_seen(title: str, code: str, printed: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )

    assert done.stdout == printed


def test_there_are_four_findings() -> None:
    assert len(FINDINGS) == 4


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / document).parent / name if name else ROOT / document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, target


def test_the_page_of_trust_names_tests_that_are_there() -> None:
    named = re.findall(
        r"`(?:(test_\w+\.py|…)::)?(test_\w+)((?:\[[^\]]+\])?)`|`(\[[^\]]+\])`", TRUST.partition("\n|")[2]
    )
    file = test = ""
    for of_file, of_test, case, further_case in named:
        file, test = of_file.replace("…", file) or file, of_test or test
        source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file))
        assert f"def {test}(" in source, f"{file}::{test}"
        name = (case or further_case).strip("[]")
        assert f'"{name}"' in source or not name, f"{file}::{test}[{name}]"
    assert len(named) > 50


def commands(section: str) -> str:
    """The commands of a section of the page for teams."""
    text = (ROOT / "docs" / "team.md").read_text(encoding="utf-8")
    body = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return "".join(re.findall(r"```bash\n(.*?)```", body, flags=re.DOTALL))


@pytest.mark.slow
def test_the_teams_commands_work_as_written(tmp_path: Path) -> None:
    """Branches, experiments, a remote and a merge, one after the other, on ratings few enough to train on at once."""
    project = copy_project(tmp_path / "project")
    keep_ratings(project, 6000)
    run(project, "bash", "-c", "dvc repro && git add --all && git commit --quiet --message 'Train on a few ratings'")
    remote = tmp_path / "ratings-storage"

    for section in ("Comparing branches", "Experiments", "A remote", "A merge that conflicts"):
        script = commands(section).replace("/tmp/ratings-storage", str(remote))  # noqa: S108, the page's own
        if section == "A remote":
            run(project, "bash", "-ec", "git restore . && git switch --quiet main && dvc checkout --quiet")
        if section == "A merge that conflicts":
            # The other side of the conflict: main has trained with other batches, too.
            run(project, "bash", "-ec", "sed -i 's/batch_size: 128 /batch_size: 64 /' params.yaml && dvc repro")
            run(project, "git", "commit", "--quiet", "--all", "--message", "Train with smaller batches")
            script = script.replace(
                "# settle params.yaml in an editor, then", "git checkout --theirs -- params.yaml", 1
            )
        run(project, "bash", "-ec", script)

    assert any(remote.rglob("*.dir")) or any(path.is_file() for path in remote.rglob("*"))
    assert "batch_size: 512 " in (project / "params.yaml").read_text()
    assert "up to date" in run(project, "dvc", "repro").stdout
    assert run(project, "git", "status", "--porcelain").stdout == ""
