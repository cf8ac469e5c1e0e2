"""Results shared through a DVC remote: pushed, pulled into a new clone, and nothing to run there."""

import getpass
import hashlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from cheroot.wsgi import Server
from moto.server import ThreadedMotoServer
from wsgidav.wsgidav_app import WsgiDAVApp

from tests.processes import Start, wait_until
from tests.project import ROOT, clone_project, commit, dvc, edit_params, read_results, run, stages_run
from tests.samples import GOODBOOKS, needs_goodbooks

pytestmark = pytest.mark.slow

GOODBOOKS_SHA256 = "c5d10afdaef938a5b9a7feb200dd5027d410a7d9ff1bf518340233b7f0f8455e"
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])

Settings = dict[str, str]
"""How a user logs in: what `dvc remote modify --local` sets, outside git."""


def log_in(project: Path, settings: Settings) -> None:
    for option, value in settings.items():
        dvc(project, "remote", "modify", "--local", "store", option, value)


def assert_shared(project: Path, url: str, settings: Settings) -> None:
    dvc(project, "remote", "add", "--default", "store", url)
    commit(project, "Add a remote")
    log_in(project, settings)
    assert "files pushed" in dvc(project, "push")

    clone = clone_project(project, project.with_name("clone"))
    log_in(clone, settings)
    assert "files added" in dvc(clone, "pull")
    assert stages_run(dvc(clone, "repro")) == []
    assert read_results(clone) == read_results(project)
    assert run(clone, "git", "status", "--porcelain").stdout == ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_folder(small: Path, tmp_path: Path) -> None:
    assert_shared(small, str(tmp_path / "store"), {})


@pytest.fixture
def ssh_port(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """OpenSSH's server for the current user alone, who logs in with the key home/.ssh/id_ed25519."""
    if SSHD is None:
        pytest.skip("openssh-server is not installed")
    keys = tmp_path / "home" / ".ssh"
    keys.mkdir(parents=True)
    for key in ("host_key", "id_ed25519"):
        run(keys, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    port = free_port()
    (keys / "authorized_keys").write_bytes((keys / "id_ed25519.pub").read_bytes())
    (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {(keys / 'host_key.pub').read_text()}")
    (keys / "sshd_config").write_text(f"""
        Port {port}
        ListenAddress 127.0.0.1
        HostKey {keys}/host_key
        AuthorizedKeysFile {keys}/authorized_keys
        PidFile none
        PasswordAuthentication no
        KbdInteractiveAuthentication no
        StrictModes no
        UsePAM no
        Subsystem sftp internal-sftp
        """)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    separation = Path("/run/sshd")  # a server that root starts wants this folder, which Debian makes at boot
    made = os.getuid() == 0 and not separation.exists()
    if made:
        separation.mkdir(mode=0o755)
    server = start(keys, SSHD, "-D", "-e", "-f", str(keys / "sshd_config"))
    wait_until(lambda: answers(port) or server.process.poll() is not None, 20)
    assert server.process.poll() is None, server.output
    yield port
    if made:
        separation.rmdir()


def test_ssh(small: Path, tmp_path: Path, ssh_port: int) -> None:
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{ssh_port}{tmp_path}/store"
    assert_shared(small, url, {"keyfile": str(tmp_path / "home" / ".ssh" / "id_ed25519")})


@pytest.fixture
def webdav_port(tmp_path: Path) -> Iterator[int]:
    """A WebDAV server with one user and one folder, store: DVC makes folders in it, not itself."""
    folder = tmp_path / "webdav"
    (folder / "store").mkdir(parents=True)
    users = {"*": {"reader": {"password": "sesame"}}}
    app = WsgiDAVApp(
        {"provider_mapping": {"/": str(folder)}, "simple_dc": {"user_mapping": users}, "verbose": 0, "logging": {}}
    )
    server = Server(("127.0.0.1", free_port()), app)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server.bind_addr[1]
    server.stop()
    thread.join()


def test_webdav(small: Path, webdav_port: int) -> None:
    assert_shared(small, f"webdav://127.0.0.1:{webdav_port}/store", {"user": "reader", "password": "sesame"})


@pytest.fixture
def s3_url() -> Iterator[str]:
    """An S3 server that keeps its one bucket in memory."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="secret",  # noqa: S106
    )
    client.create_bucket(Bucket="bucket")
    yield url
    server.stop()


def test_s3(small: Path, s3_url: str) -> None:
    login = {"endpointurl": s3_url, "region": "us-east-1", "access_key_id": "id", "secret_access_key": "secret"}
    assert_shared(small, "s3://bucket/store", login)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server's address, and the folder that it shows."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def end_headers(self) -> None:
            path = folder / self.path.lstrip("/")
            self.send_header("ETag", f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"')
            super().end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("ratings", [ROOT / "data" / "sample.csv", pytest.param(GOODBOOKS, marks=needs_goodbooks)])
def test_ratings_from_a_web_server(small: Path, site: tuple[str, Path], ratings: Path) -> None:
    url, folder = site
    shutil.copy(ratings, folder / "ratings.csv")
    dvc(small, "import-url", f"{url}/ratings.csv", "data/goodbooks-10k.csv")
    imported = small / "data" / "goodbooks-10k.csv"
    assert imported.read_bytes() == ratings.read_bytes()
    if ratings == GOODBOOKS:
        assert hashlib.sha256(imported.read_bytes()).hexdigest() == GOODBOOKS_SHA256
    assert "data/goodbooks-10k.csv\n" not in run(small, "git", "status", "--porcelain", "-uall").stdout

    edit_params(small, "ratings: data/sample.csv ", "ratings: data/goodbooks-10k.csv ")
    output = dvc(small, "repro", "prepare-ratings")
    assert "prepare-ratings" in stages_run(output)
    rows = sum(1 for _ in ratings.open()) - 1
    assert f"{rows:,}" in output
