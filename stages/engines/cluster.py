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
from types import ModuleType
from typing import Any

from stages.program.errors import StageError, shorten
from stages.program.params import Params
from stages.program.process import stop_on_signals

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

AHEAD = 2
"""Tasks for each worker that are handed out before the first one's result is taken."""

STAGES = Path(__file__).parents[1]


@contextlib.contextmanager
def map_on(params: Params) -> Iterator[Map]:
    """What `map` does, in this process or on the workers of a Ray cluster, as `engine` says; in order either way."""
    if params.engine == "local":
        yield map
        return
    with connect(params) as ray:
        folder = Path.cwd()

        def on_workers(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
            task = ray.remote(_call_in)
            waiting: deque[Any] = deque()
            for item in items:
                waiting.append(task.remote(folder, function, item))
                if len(waiting) > AHEAD * params.ray.workers:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())

        yield on_workers


def _call_in(folder: Path, function: Callable[[Any], Any], item: Any) -> Any:
    """Call the function in the project's folder, where relative paths start."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise StageError(
            f"{folder} isn't on {socket.gethostname()}: Ray's computers must share the folder of the project and of "
            "the ratings, under the same name on each, as NFS does it"
        ) from error
    return function(item)


def _result(task: Any) -> Any:
    """What a task returns or, as it was, what it raises."""
    import ray

    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


@contextlib.contextmanager
def connect(params: Params, processors: int = 1) -> Iterator[ModuleType]:
    """Have a cluster on which each of `ray.workers` has its processors; Ray itself is loaded here, after its settings.

    Raises:
        StageError: Ray isn't installed, no cluster answers at the address, or it is too small.
    """
    own, address = params.ray.address == "local", params.ray.address
    os.environ.update(RAY_AUTH_MODE="token", RAY_USAGE_STATS_ENABLED="0")
    with _folder() as folder:
        options: dict[str, Any] = {"address": address}
        if own:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once in a process
            # On Linux, too: only so does Ray stay on loopback. And a stage gets as much time as without Ray.
            os.environ.update({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"})
            options |= {"num_cpus": params.ray.workers * processors, "include_dashboard": False, "_temp_dir": folder}
        try:
            import ray
        except ModuleNotFoundError as error:
            raise StageError(
                f"params.yaml: engine is ray, and {error.name} isn't installed; "
                "run: pip install -r requirements-ray.txt"
            ) from error
        try:
            ray.init(
                **options,
                logging_level="ERROR",
                log_to_driver=False,
                runtime_env={"py_modules": [str(STAGES)], "env_vars": {"CUDA_VISIBLE_DEVICES": ""}},
            )
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            reason = shorten(" ".join(str(error).split()), 300)
            raise StageError(f"params.yaml: ray.address is {address}: {reason}") from error
        stop_on_signals()  # Ray has put its own way of stopping in place
        try:
            there, wanted = int(ray.cluster_resources().get("CPU", 0)), params.ray.workers * processors
            if there < wanted:
                raise StageError(
                    f"params.yaml: ray.workers is {params.ray.workers}, each with {processors} processors; "
                    f"the cluster at {address} has {there} in all"
                )
            yield ray
        except ray.exceptions.ObjectStoreFullError as error:
            raise StageError(
                "Ray's object store is full; more memory for it (ray start --object-store-memory) or fewer ray.workers "
                "would do"
            ) from error
        except ray.exceptions.OutOfDiskError as error:
            raise StageError("the disk is full on which Ray's object store goes on when its memory is full") from error
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A folder for a cluster's logs and sockets, whose path must be short; those of killed stages are removed."""
    temporary = Path(tempfile.gettempdir())
    for abandoned in temporary.glob("ray-stage-*-*"):
        with contextlib.suppress(OSError, ValueError):
            try:
                os.kill(int(abandoned.name.split("-")[2]), 0)
            except ProcessLookupError:
                shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"ray-stage-{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        yield folder
