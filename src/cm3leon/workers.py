"""One job for many tasks: in this process, or by Ray on any number of machines.

Results come in the order of the tasks, so whoever writes them down writes the same
bytes wherever they were made, on processors of one kind. A job is pickled once for each
worker; what it names by its path must be at that path on every machine. A worker that
is lost is started again, and its task with it.
"""

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol, TypeVar, runtime_checkable

from cm3leon.errors import Cm3leonError, ConfigError

Task = TypeVar("Task")
Result = TypeVar("Result")


@runtime_checkable
class Workers(Protocol):
    """Does a job for every task; results in the order of the tasks."""

    def __call__(
        self, job: Callable[[Task], Result], tasks: Sequence[Task], /
    ) -> Iterator[Result]:
        """The results, made while they are asked for."""


def here(job: Callable[[Task], Result], tasks: Sequence[Task], /) -> Iterator[Result]:
    """One task after the other in this process."""
    return map(job, tasks)


@contextmanager
def open_workers(address: str | None) -> Iterator[Workers]:
    """Ray's workers, one a processor; without an address `here`.

    Args:
        address: as `ray.init` takes it: "local" for the processors of this machine,
            "auto" for the cluster this machine belongs to, HOST:PORT to name it. A
            Ray that this process has started before is used as it is.

    Raises:
        ConfigError: there is no Ray at that address.
    """
    if address is None:
        yield here
        return
    ray: Any = import_module("ray")
    running = ray.is_initialized()
    if not running:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it phones home
        try:
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=False,
                include_dashboard=False if address == "local" else None,
            )
        except (ConnectionError, ValueError) as error:
            raise ConfigError(
                f"no Ray at {address} ({error}); give local, auto or HOST:PORT"
            ) from error
    try:
        yield _ray
    finally:
        if not running:
            ray.shutdown()


def _ray(job: Callable[[Task], Result], tasks: Sequence[Task], /) -> Iterator[Result]:
    if not tasks:
        return
    ray: Any = import_module("ray")
    data: Any = import_module("ray.data")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Pickled by us: Arrow, which carries the rows, would make lists of tuples.
    rows = data.from_items(
        [{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks)
    )
    processors = int(ray.cluster_resources().get("CPU", 1))
    made = rows.map(
        _Worker,
        fn_constructor_args=(pickle.dumps(job),),
        compute=data.ActorPoolStrategy(size=max(1, min(processors, len(tasks)))),
    )
    for row in made.iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, Cm3leonError):
            raise result
        yield result


class _Worker:
    """Holds the job; what goes wrong on purpose comes back to be raised here."""

    def __init__(self, job: bytes) -> None:
        self._pickled = job
        self._job: Callable[[Any], Any] | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        try:
            if self._job is None:  # not before: opening may fail on purpose
                self._job = pickle.loads(self._pickled)
            result = self._job(pickle.loads(row["task"]))
        except Cm3leonError as error:
            result = error
        return {"result": pickle.dumps(result)}
