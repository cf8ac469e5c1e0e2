"""Ray: the cluster that a stage computes on, its own or one that is there, and what ends with it.

A cluster of the stage's own lives as long as the stage. It listens on loopback alone, takes only who knows a token that
is new each time, has no dashboard and reports nothing to anybody; one that is joined is as its owner has made it, but
for the token, without which no cluster is joined.
"""

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from stages.engines.here import HERE, Engine
from stages.program.errors import StageError, shorten
from stages.program.params import Params
from stages.program.process import last_acts, stop_on_signals

PARTS, MAX_PARTS = 4, 256
"""Parts of a table for each worker, which has one of them in its own memory at a time; and for all."""

OWN_CLUSTER = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux, too: only then does Ray stay on loopback
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # a process that was just starting when all others ended gives up
    "RAY_worker_niceness": "0",  # a stage gets as much of the processors as without Ray
}
"""Ray's settings for a cluster of the stage's own."""

ADVICE = {
    "AuthenticationError": "RAY_AUTH_TOKEN or ~/.ray/auth_token must hold the cluster's token",
    "LocalRayletDiedError": "one of its own processes was killed, most often as a machine's memory was full",
    "WorkerCrashedError": "a worker was killed again and again, most often as a machine's memory was full",
    "ConnectionError": "no cluster that takes the token in RAY_AUTH_TOKEN or ~/.ray/auth_token; is it up (ray start)?",
    "ObjectStoreFullError": "its object store is full; ray start --object-store-memory gives it more",
    "OutOfDiskError": "its object store is full, and so is the disk on which it goes on",
    "OutOfMemoryError": "a machine's memory is full; fewer ray.workers take less to train, smaller files to read",
}
"""What to do, by Ray's names of errors."""

LONGEST_FOLDER = 15
"""Characters of the folder for temporary files: Ray adds nearly 90, and a socket's path may have 107."""

STAGES = Path(__file__).parents[1]


@contextlib.contextmanager
def engine_of(params: Params) -> Iterator[Engine]:
    """This process, or the workers of a Ray cluster, as `engine` says."""
    if params.engine == "local":
        yield HERE
        return
    with connect(params) as ray:
        yield OnRay(ray, params.ray.workers)


class OnRay:
    """The workers of a cluster: what they keep is in Ray's object store, which goes on on the disk when it is full."""

    def __init__(self, ray: Any, workers: int) -> None:
        self.part_count = min(PARTS * workers, MAX_PARTS)
        self._ray, self._workers, self._folder = ray, workers, Path.cwd()
        self.get, self.share = result_of, ray.put

    def starmap(
        self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], returns: int = 1
    ) -> Iterator[Any]:
        """Have as many calls made at the same time as there are workers."""
        task = self._ray.remote(num_returns=returns)(_call_in)
        running: list[Any] = []
        kept: deque[Any] = deque()
        for each in arguments:
            if len(running) == self._workers:
                _, running = self._ray.wait(running, num_returns=1, fetch_local=False)
            kept.append(task.remote(self._folder, function, *each))
            running.append(kept[-1] if returns == 1 else kept[-1][0])
            if len(kept) > self._workers:
                yield kept.popleft()
        yield from kept


def _call_in(folder: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function in the project's folder, where relative paths start."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise StageError(
            f"{folder} isn't on {socket.gethostname()}: Ray's computers must share the folder of the project and of "
            "the ratings, under the same name on each, as NFS does it"
        ) from error
    return function(*arguments)


def result_of(task: Any) -> Any:
    """What a task returns; what it raises is raised here as it was."""
    import ray

    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


@contextlib.contextmanager
def connect(params: Params, processors: int = 1) -> Iterator[Any]:
    """Have a cluster on which each of `ray.workers` has its processors; Ray itself is loaded here, after its settings.

    Raises:
        StageError: Ray isn't installed, no cluster answers at the address, it is too small, or something ends in it.
    """
    os.environ.update(RAY_AUTH_MODE="token", RAY_USAGE_STATS_ENABLED="0", RAY_NUM_REDIS_GET_RETRIES="1")
    is_own = params.ray.address == "local"
    with _folder() if is_own else contextlib.nullcontext() as folder:
        options: dict[str, Any] = {"address": params.ray.address}
        if is_own:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once in a process
            os.environ.update(OWN_CLUSTER)
            options |= {"num_cpus": params.ray.workers * processors, "include_dashboard": False, "_temp_dir": folder}
        ray = _load()
        try:
            _join(ray, options)
            require_processors(ray, params, processors)
            yield ray
        except (ConnectionError, ray.exceptions.RayError) as error:
            kind, reason = type(error).__name__, shorten(" ".join(str(error).split()), 300)
            raise StageError(
                f"Ray at {params.ray.address} (params.yaml): {ADVICE.get(kind, kind)}: {reason}"
            ) from error
        finally:
            ray.shutdown()


def _load() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise StageError(
            f"params.yaml: engine is ray, and {error.name} isn't installed; run: pip install -r requirements-ray.txt"
        ) from error
    return ray


def _join(ray: Any, options: dict[str, Any]) -> None:
    # Left alone, Ray sends values under 100 kB to this process to keep: with many files that is the whole table.
    settings = {"CUDA_VISIBLE_DEVICES": "", "RAY_max_direct_call_object_size": "1000"}
    code = {"py_modules": [str(STAGES)], "env_vars": settings}
    host, _, port = options["address"].rpartition(":")
    try:
        if host:  # Ray itself would look for it for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(**options, runtime_env=code, logging_level="ERROR", log_to_driver=False)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:  # such as a cluster of another version
        if options["address"] == "local":
            raise StageError(f"Ray's own cluster doesn't start: {shorten(str(error), 300)}") from error
        raise ConnectionError(str(error)) from error
    stop_on_signals()  # Ray has put its own way of stopping in place
    last_acts.append(_end_descendants)


def _end_descendants() -> None:
    """End what this process has started, and what that has: left alone, some of Ray's look for the others first."""
    import psutil  # which Ray brings along

    for process in reversed(psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def require_processors(ray: Any, params: Params, processors: int) -> None:
    """See that the cluster is large enough, as it is now.

    Raises:
        StageError: it isn't.
    """
    there = int(ray.cluster_resources().get("CPU", 0))
    if there < params.ray.workers * processors:
        raise StageError(
            f"params.yaml: ray.workers is {params.ray.workers}, each with {processors} "
            f"processor{'s' * (processors > 1)}; the cluster at {params.ray.address} has {there} in all"
        )


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A folder for a cluster's logs and sockets, whose path must be short; those of killed stages are removed."""
    temporary = Path(tempfile.gettempdir())
    if len(str(temporary)) > LONGEST_FOLDER:
        temporary = Path("/tmp")  # noqa: S108, a folder of the process's own is made in it
    for abandoned in temporary.glob("ray-stage-*-*"):
        with contextlib.suppress(OSError, ValueError):
            try:
                os.kill(int(abandoned.name.split("-")[2]), 0)
            except ProcessLookupError:
                shutil.rmtree(abandoned, ignore_errors=True)
    prefix = f"ray-stage-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=temporary, ignore_cleanup_errors=True) as folder:
        last_acts.append(lambda: shutil.rmtree(folder, ignore_errors=True))
        yield folder
