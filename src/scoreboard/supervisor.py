"""``scoreboard up``: everything on this machine, kept alive, and stopped in the order of the flow.

In: options and a data folder. Out: the engines, and one child process for each role, which inherit the
listening socket that is held here, so that no connection is refused while a child is replaced. It serves
nothing itself. It must never run twice on one data folder, or leave a process behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import setproctitle

from scoreboard import config, metrics
from scoreboard.engines import Engines, Urls, folder, given
from scoreboard.engines.process import Leftovers
from scoreboard.errors import ConfigurationError, EngineError, first_of
from scoreboard.listening import base_url, listen, until_ready
from scoreboard.roles import Child, Children, Keeper, Options, children

logger = logging.getLogger(__name__)

__all__ = ["Child", "Children", "Options", "Running", "children", "running", "up"]

DEMO_FOLDER = "demo"  # below the data folder: imaginary players never touch a real ledger


class Running(msgspec.Struct, frozen=True):
    """Where everything is once it runs."""

    url: str
    urls: Urls


async def up(
    options: Options,
    *,
    on_ready: Callable[[str], None] | None = None,
    children: Children = children,
) -> None:
    """Runs everything until SIGINT or SIGTERM; a second one ends it at once.

    Raises:
        ConfigurationError: a setting is wrong, or the port is taken.
        EngineError: an engine does not start, or the data folder is in use.
    """
    setproctitle.setproctitle("scoreboard up")
    data = _folder(options)
    with folder.hold(data, "up") as held:
        if not held:
            raise _in_use(data)
        everything = _Everything(options, data, children)

        def ready(running: Running) -> None:
            folder.tell(data, folder.State(pid=os.getpid(), holder="up", url=running.url, urls=running.urls))
            if on_ready is not None:
                on_ready(running.url)

        running = asyncio.create_task(everything.run(ready), name="scoreboard up")
        stopped = False

        def stop() -> None:
            nonlocal stopped
            if stopped:
                logger.warning("told to stop a second time: ending everything at once")
                everything.kill()
            else:
                logger.info("stopping")
                stopped = True
                running.cancel()

        with _on_signals(stop):
            try:
                await running
            except asyncio.CancelledError:
                if not stopped:
                    raise


@asynccontextmanager
async def running(options: Options, *, children: Children = children) -> AsyncIterator[Running]:
    """Where the ``up`` on this data folder serves; without one, everything runs while the body does.

    Raises:
        ConfigurationError, EngineError: as ``up``.
    """
    data = _folder(options)
    async with folder.share(data) as state:
        if state is not None and state.url is not None and state.urls is not None:
            yield Running(state.url, state.urls)
            return
        options = msgspec.structs.replace(options, host="127.0.0.1", port=0)
        ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
        everything = _Everything(options, data, children)
        task = asyncio.create_task(everything.run(ready.set_result), name="everything for a command")
        try:
            await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                await task  # raises what went wrong
            yield ready.result()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


class _Everything:
    """The engines and the roles of one data folder, which the caller holds."""

    def __init__(self, options: Options, data: Path, children: Children) -> None:
        self._options = options
        self._data = data
        self._children = children
        self._environment = config.environment()
        if options.demo and given(self._environment):
            msg = (
                "--demo plays on engines of its own; unset SCOREBOARD_DATABASE_URL, _QUEUE_URL and _BOARD_URL"
            )
            raise ConfigurationError(msg)
        self._engines = Engines(data, self._environment)
        self._keepers: list[Keeper] = []

    async def run(self, ready: Callable[[Running], None]) -> None:
        """Starts all, calls ``ready``, keeps all alive; stops all when cancelled or when one cannot run."""
        # Roles that an earlier supervisor left would still hold the port.
        await Leftovers(self._data).end()
        secret = config.secret_of(self._environment, self._data)
        with listen(self._options.host, self._options.port) as listening:
            url = base_url(self._options.host, listening)
            try:
                urls = await self._engines.start()
                env = self._env(urls, secret)
                self._keepers = [
                    Keeper(child, number, env, self._engines)
                    for number, child in enumerate(self._children(self._options, listening.fileno(), url))
                ]
                await self._keep(url, lambda: ready(Running(url, urls)))
            finally:
                # From here on newcomers are refused at once, not queued for processes that are leaving.
                listening.close()
                await self._stop()

    def kill(self) -> None:
        """Ends everything at once."""
        for keeper in self._keepers:
            keeper.kill()
        self._engines.kill()

    async def _keep(self, url: str, ready: Callable[[], None]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._engines.watch(), name="watch the engines")
                for keeper in self._keepers:
                    if not keeper.child.after_ready:
                        group.create_task(keeper.keep(), name=f"keep {keeper.child.role}")
                await until_ready(url)
                ready()
                for keeper in self._keepers:
                    if keeper.child.after_ready:
                        group.create_task(keeper.keep(), name=f"keep {keeper.child.role}")
        except BaseExceptionGroup as failures:
            raise first_of(failures) from failures

    async def _stop(self) -> None:
        # From the front of the flow to its end, so that nothing is sent to what has gone.
        for role in reversed(dict.fromkeys(keeper.child.role for keeper in self._keepers)):
            await asyncio.gather(*(k.stop() for k in self._keepers if k.child.role == role))
        await self._engines.stop()

    def _env(self, urls: Urls, secret: str) -> dict[str, str]:
        # The one place besides config/ that touches the environment: not to read a setting, but because
        # a child gets ours (PATH, HOME, proxies, what an issuer's secret_env names), with its own on top.
        env = {name: value for name, value in os.environ.items() if name != "SCOREBOARD_CONFIG"}
        env |= {
            "SCOREBOARD_DATABASE_URL": urls.database,
            "SCOREBOARD_QUEUE_URL": urls.queue,
            "SCOREBOARD_BOARD_URL": urls.board,
            "SCOREBOARD_SECRET": secret,
            "SCOREBOARD_DATA": str(self._data),
            **metrics.shared(self._data),
        }
        if self._options.config is not None and not self._options.demo:
            env["SCOREBOARD_CONFIG"] = str(self._options.config.absolute())
        return env


def _folder(options: Options) -> Path:
    return folder.prepare(options.data / DEMO_FOLDER if options.demo else options.data)


def _in_use(data: Path) -> EngineError:
    state = folder.read_state(data)
    if state is None:
        who = "by another process"
    elif state.holder != "up":
        who = f"by a command, process {state.pid}; wait for its end"
    else:
        where = f"at {state.url}" if state.url else "which is still starting"
        who = f"by `scoreboard up`, process {state.pid}, {where}; stop it first"
    return EngineError(f"the data folder {data} is in use {who}, or choose another folder with --data")


@contextmanager
def _on_signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    # The terminal's end is a wish to stop, too, unless it is ignored (nohup).
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    numbers = (signal.SIGINT, signal.SIGTERM, *hangup)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
