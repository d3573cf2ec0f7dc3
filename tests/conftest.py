"""What all tests share: the real engines, once a session, and a deployment of their own for each test.

Tests are isolated by name (a database, a namespace for queue and board), never by emptying an engine.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from deployment import Deployment
from scoreboard import rates
from scoreboard.auth import keys
from scoreboard.config import Config, Environment
from scoreboard.engines import Urls, engines

for name in list(os.environ):
    if name.startswith("SCOREBOARD_"):
        del os.environ[name]  # a developer's settings are not the tests'
# Nothing here speaks TLS, and httpx reads all certificates of the world for each client: 40 ms. In a folder
# they are looked for only when one is needed; but a file goes before it.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)

pytest_plugins = ["browsing"]

# Files that take a minute or more, of one deployment after the other: begun first, or at the end one process
# works on the last of them while the others have nothing left.
LONG = ("test_up.py", "test_torture.py", "test_watch.py")
_numbers = itertools.count(1)
Deploy = Callable[..., Awaitable[Deployment]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first; all else in its order."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
async def engine_urls(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Urls]:
    """PostgreSQL, NATS and Valkey, started from their wheels."""
    data: Path = tmp_path_factory.mktemp("engines")
    async with engines(data, Environment()) as urls:
        yield urls


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that holds PostgreSQL's files, as the first start makes them, and no other engine's."""
    data: Path = tmp_path_factory.mktemp("cluster")
    async with engines(data, Environment(queue_url="nats://none", board_url="redis://none")):
        return data


@pytest.fixture
def made(data: Path, cluster: Path) -> Path:
    """A test's data folder with PostgreSQL's files in it: to make them takes longer than all the rest."""
    return shutil.copytree(cluster, data, dirs_exist_ok=True)


@pytest.fixture
def home(tmp_path: Path, cluster: Path) -> Path:
    """A folder to start ``scoreboard up`` in, where PostgreSQL's files are made."""
    shutil.copytree(cluster, tmp_path / "scoreboard-data")
    return tmp_path


@pytest.fixture(scope="session")
def deploy(engine_urls: Urls) -> Deploy:
    """Makes deployments, each with a database, a log and boards of its own; no role is running yet.

    They are not removed one by one: they go with the engines.
    """

    async def make(config: Config | None = None) -> Deployment:
        made = Deployment(engine_urls, config or Config(), f"t{os.getpid()}_{next(_numbers)}")
        await made.prepare()
        return made

    return make


class Clock:
    """The clock of keys and rates; it stands still."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that goes when the test says so."""
    made = Clock()
    monkeypatch.setattr(keys, "monotonic", made)
    monkeypatch.setattr(rates, "monotonic", made)
    return made


@pytest.fixture
async def deployment(deploy: Deploy) -> Deployment:
    """A deployment with the built-in configuration; its roles are not running yet."""
    return await deploy()
