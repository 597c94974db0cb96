"""A progress bar on stderr, where somebody is looking."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(
    what: str, total: int, unit: str | None = None
) -> Iterator[Callable[[float], None]]:
    """A bar that is gone afterwards; call what it gives with how much is done.

    Args:
        what: the work.
        total: how much there is to do.
        unit: what is counted, to show how many of it are done a second.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            """Of the last half minute, as soon as there is one."""
            return Text(f"{task.speed:,.1f} {unit}/s" if unit and task.speed else "")

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        Speed(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
