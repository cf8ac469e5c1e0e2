"""`dvc plots show` and `dvc plots diff`, as a real browser without a network shows them."""

import base64
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stages.plot_losses import write_vega_bundle
from tests.project import ROOT, clone_project, commit, dvc, run

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TORCH, KERAS = "#D55E00", "#0072B2"
PICTURES = ("pytorch.png", "keras.png", "comparison.png")
ONE_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


class Page(HTMLParser):
    """What the browser has made of a page: its curves as (colour, dashes), its pictures, the texts of its charts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.lines: list[tuple[str, str]] = []
        self.images: list[str] = []
        self.texts: list[str] = []
        self.hidden_ids: list[str] = []
        self.in_text = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.in_text = tag == "text"
        if values.get("aria-roledescription") == "line mark":
            self.lines.append((values["stroke"], values["stroke-dasharray"]))
        if tag == "img":
            self.images.append(values["src"])
        if "hidden" in values:
            self.hidden_ids.append(values["id"])

    def handle_data(self, data: str) -> None:
        if self.in_text:
            self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.in_text = False


def browse(page: Path, profile: Path) -> Page:
    """Open `page` in a browser that finds no host, and read back what its scripts have drawn."""
    assert CHROMIUM is not None
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        " --disable-component-update --disable-sync --virtual-time-budget=10000 --dump-dom"
    )
    command = [CHROMIUM, *flags.split(), "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}"]
    dom = subprocess.run([*command, page.as_uri()], check=True, timeout=120, stdout=subprocess.PIPE, encoding="utf-8")
    return Page(dom.stdout)


def write_losses(folder: Path, epochs: int) -> None:
    for framework, start in (("pytorch", 1.2), ("keras", 0.9)):
        curve = [
            {"epoch": epoch, "train_loss": start / epoch + 0.6, "val_loss": start / epoch + 0.7}
            for epoch in range(1, epochs + 1)
        ]
        losses = {"best_epoch": epochs, "train_loss": 0.8, "val_loss": 0.9, "test_loss": 0.9}
        (folder / f"{framework}.json").write_text(json.dumps({framework: losses, "curve": curve}))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "vega.js"
    write_vega_bundle(path)
    return path


@pytest.fixture
def repo(tmp_path: Path, bundle: Path) -> Path:
    """The project as its pipeline leaves it, in two commits whose curves have three and five epochs."""
    repo = tmp_path / "repo"
    for path in ("dvc.yaml", "params.yaml", ".dvc/config", ".dvc/plots-page.html", ".dvc/plots/loss-curves.json"):
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, repo / path)
    (repo / ".gitignore").write_text("vega.js\ndvc_plots/\n.dvc/tmp/\n")
    losses = repo / "losses"
    losses.mkdir()
    shutil.copy(bundle, losses)
    for picture in PICTURES:
        (losses / picture).write_bytes(ONE_PIXEL)
    run(repo, "git", "init", "--quiet")
    for epochs in (3, 5):
        write_losses(losses, epochs)
        commit(repo, f"{epochs} epochs")
    return repo


def assert_pictures(page: Page, folder: Path, count: int) -> None:
    for picture in PICTURES:
        shown = [image for image in page.images if image.endswith(picture)]
        assert len(shown) == count
        assert all((folder / image).read_bytes() == ONE_PIXEL for image in shown)


@needs_browser
def test_show_draws_both_frameworks_curves_without_a_network(repo: Path, tmp_path: Path) -> None:
    dvc(repo, "plots", "show")
    page = browse(repo / "dvc_plots" / "index.html", tmp_path / "profile")

    assert len(page.lines) == 4
    assert [colour for colour, _ in page.lines].count(TORCH) == 2
    assert [colour for colour, _ in page.lines].count(KERAS) == 2
    assert len(set(page.lines)) == 4, "train and validation must differ in their dashes"
    assert {"PyTorch", "Keras", "train", "validation"} <= set(page.texts)
    assert {"epoch", "mean squared error (stars²)", "workspace"} <= set(page.texts)
    assert {"1", "2", "3", "4", "5"} <= set(page.texts), "the epochs' axis has whole numbers"
    assert_pictures(page, repo / "dvc_plots", count=1)
    assert "no-charts" in page.hidden_ids


@needs_browser
def test_diff_puts_revisions_side_by_side(repo: Path, tmp_path: Path) -> None:
    dvc(repo, "plots", "diff", "HEAD~1", "HEAD")
    page = browse(repo / "dvc_plots" / "index.html", tmp_path / "profile")

    assert len(page.lines) == 8
    assert len(set(page.lines)) == 4, "the same line means the same in both panels"
    assert [text for text in page.texts if text.startswith("HEAD")] == ["HEAD~1", "HEAD"]
    assert page.texts.count("PyTorch") == 1, "both panels share one legend"
    assert_pictures(page, repo / "dvc_plots", count=2)


@needs_browser
@pytest.mark.parametrize(("cwd", "out"), [("losses", "dvc_plots"), (".", "build/plots")])
def test_pages_one_folder_deeper_find_vega_too(repo: Path, tmp_path: Path, cwd: str, out: str) -> None:
    dvc(repo / cwd, "plots", "show", "--out", out)

    assert len(browse(repo / cwd / out / "index.html", tmp_path / "profile").lines) == 4


@needs_browser
def test_a_new_clone_shows_pictures_and_says_what_the_charts_lack(repo: Path, tmp_path: Path) -> None:
    clone = clone_project(repo, tmp_path / "clone")
    dvc(clone, "plots", "show")
    page = browse(clone / "dvc_plots" / "index.html", tmp_path / "profile")

    assert page.html.count('src="https://cdn.jsdelivr.net/npm/vega@') > 0, "with a network, DVC's CDN has Vega"
    assert page.lines == []
    assert "no-charts" not in page.hidden_ids
    assert_pictures(page, clone / "dvc_plots", count=1)
