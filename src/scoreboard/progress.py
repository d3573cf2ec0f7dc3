"""A progress bar with rate and time left, when somebody looks: standard error is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as Left
from rich.text import Text


class Rate(ProgressColumn):
    """Things a second."""

    def render(self, task: Task) -> Text:
        """The rate as it is now."""
        return Text(f"{task.speed or 0:,.0f}/s", style="progress.data.speed")


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for ``total`` things. What it gives is called with how many more are done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), Left())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)
