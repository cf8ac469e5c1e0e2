"""A Ray cluster of one machine, which the tests of a file share."""

import importlib.util
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.program.params import Params
from tests.samples import change


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A cluster takes longer than five seconds to start."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def token() -> None:
    """One for all clusters of the tests' process, in which Ray reads it once."""
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@pytest.fixture(scope="module", autouse=True)
def environment(token: None) -> Iterator[None]:
    """What else a cluster of the tests' process sets there ends with the file's tests."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def on_ray(params: Params) -> Params:
    """The project's parameters, but for the engine."""
    if importlib.util.find_spec("ray") is None:  # which `import ray` would load before it has its settings
        pytest.skip("Ray isn't installed: pip install -r requirements-ray.txt")
    return change(params.model_copy(update={"engine": "ray"}), ray={"workers": 4})


@pytest.fixture(scope="module")
def ray(on_ray: Params) -> Iterator[Any]:
    """Ray itself, with a cluster of four workers."""
    from stages.engines.cluster import connect

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with connect(on_ray) as module:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # pytest's own again
        yield module
