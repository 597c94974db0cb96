"""`Scheduler`: requests that come at any time and are drawn side by side.

    with Scheduler(engine, places=16) as scheduler:
        job = scheduler.extend(Document(Text("a red apple")), rows=2)
        for picture in job:  # while it is drawn
            picture.pixels.show()
        job.result()  # the document that `Engine.extend` would give

Continuous batching (Yu et al. 2022, "Orca", §3): a request joins the running batch as
soon as a place is free, and leaves when it has ended or is cancelled.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from queue import SimpleQueue
from threading import Condition, Thread
from types import TracebackType

from cm3leon.decoding.constraints import Kind
from cm3leon.decoding.drawing import Drawing, Request
from cm3leon.decoding.engine import Engine, Prepared, random_streams
from cm3leon.decoding.lanes import Room
from cm3leon.decoding.options import GenerationOptions
from cm3leon.errors import RequestError
from cm3leon.model.exact import rounded
from cm3leon.tokens.document import Document, Image


class Job:
    """A request on its way; iterating gives its picture while it is drawn."""

    def __init__(self, prepared: Prepared, request: Request, codes: int) -> None:
        self._prepared = prepared
        self._request = request
        self._codes = codes  # between two pictures; 0: none are wanted
        self._future: Future[Document] = Future()
        self._events: SimpleQueue[Image | None] = SimpleQueue()

    def __iter__(self) -> Iterator[Image]:
        """Pictures with more and more rows, the last one whole; once only."""
        while (picture := self._events.get()) is not None:
            yield picture

    def result(self, timeout: float | None = None) -> Document:
        """The document with its extension, when it is drawn.

        Args:
            timeout: seconds to wait at most.

        Raises:
            TimeoutError: it took longer.
            CancelledError: it was cancelled, or the scheduler closed before its end.
        """
        return self._future.result(timeout)

    def cancel(self) -> bool:
        """Give it up, and its place free; False if it has ended already."""
        return self._future.cancel()

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._future.done()


class Scheduler:
    """Draws with one engine, in a thread of its own, what any thread asks for."""

    def __init__(self, engine: Engine, places: int = 16) -> None:
        """Start.

        Args:
            engine: what draws.
            places: requests of one kind drawn at once; more wait their turn.

        Raises:
            RequestError: `places` is below 1.
        """
        if places < 1:
            raise RequestError(f"places is {places}, below 1; 16 is usual")
        self._engine = engine
        self._places = places
        self._waiting: deque[Job] = deque()
        self._going: dict[Request, Job] = {}
        self._drawings: dict[tuple[Kind, int], Drawing] = {}
        self._closed = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="cm3leon-scheduler", daemon=True)
        self._thread.start()

    def extend(
        self,
        document: Document,
        options: GenerationOptions | None = None,
        want: Kind = "image",
        *,
        neighbours: list[Document] | None = None,
        rows: int = 0,
    ) -> Job:
        """Ask for what `Engine.extend` gives; returns at once.

        Args:
            document: what to extend.
            options: how to draw; by default the model's own.
            want: what comes next.
            neighbours: those that stand before it; by default as in `Engine.extend`.
            rows: of a picture's grid between two pictures of the job; 0: no pictures.

        Raises:
            RequestError: what is asked is impossible or too long, does not fit the
                memory, or the scheduler is closed.
        """
        if rows < 0:
            raise RequestError(f"rows is {rows}, below 0; 0 is no pictures between")
        engine = self._engine
        options = (options or engine.options).seeded()
        if options.window > 1 and want == "image":
            raise RequestError(
                f"window is {options.window}, and in a running batch codes are drawn "
                "one at a time; leave it out"
            )
        given = None if neighbours is None else [neighbours]
        (prepared,) = engine.prepare([document], options, want, given)
        (chance,) = random_streams(1, options, None)
        side = round(engine.codec.codes_per_image**0.5)
        codes = rows * side if want == "image" else 0
        job = Job(prepared, Request(prepared.prompt, options, chance), codes)
        with self._changed:
            if self._closed:
                raise RequestError("the scheduler is closed")
            self._drawing(job)  # refuses here what does not fit the memory
            self._waiting.append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """Cancel what is not done, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _drawing(self, job: Job) -> Drawing:
        """The batch of requests like this one."""
        prompt = job._request.prompt
        key = (prompt.constraint.kind, len(prompt.lanes))
        if key not in self._drawings:
            model = self._engine.model
            context = rounded(model.config.context)
            prefix = context if len(prompt.lanes) > 1 else 0
            room = Room(self._places, len(prompt.lanes), context, prefix)
            self._drawings[key] = Drawing(model, prompt.constraint, room)
        return self._drawings[key]

    def _run(self) -> None:
        try:
            while not self._closed:
                self._go_on()
            error: BaseException = CancelledError("the scheduler was closed")
        except BaseException as found:  # nobody shall wait for ever
            error = found
        with self._changed:
            self._closed = True
            left = [*self._waiting, *self._going.values()]
        for job in left:
            _fail(job, error)

    def _go_on(self) -> None:
        """Wait for something to do, and do one step of it."""
        with self._changed:
            while not (self._waiting or self._going or self._closed):
                self._changed.wait()
            joining = self._next()
            drawings = list(self._drawings.values())
        for jobs in joining.values():  # all of them, before any can fail
            self._going |= {job._request: job for job in jobs}
        for drawing in drawings:
            try:
                self._go_on_with(drawing, joining.get(drawing, []))
            except Exception as error:  # the other batches go on
                self._give_up(drawing, error)

    def _go_on_with(self, drawing: Drawing, joining: Sequence[Job]) -> None:
        """Let requests join and leave a batch, and do one step of it."""
        if joining:
            drawing.join([job._request for job in joining])
        gone = [one for one in drawing.requests if self._going[one].done]
        if gone:
            drawing.leave(gone)
        for request in gone:
            self._going.pop(request)._events.put(None)
        if drawing.requests:
            self._step(drawing)

    def _give_up(self, drawing: Drawing, error: Exception) -> None:
        """Tell all of a batch what went wrong in it, and free their places."""
        jobs = [job for job in self._going.values() if self._drawing(job) is drawing]
        for job in jobs:
            del self._going[job._request]
            _fail(job, error)
        drawing.leave(list(drawing.requests))

    def _next(self) -> dict[Drawing, list[Job]]:
        """Take those for whom a place is free from the queue, the first first."""
        joining: dict[Drawing, list[Job]] = {}
        waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            drawing = self._drawing(job)
            jobs = joining.setdefault(drawing, [])
            if job.done:
                job._events.put(None)
            elif len(drawing.requests) + len(jobs) < self._places:
                jobs.append(job)
            else:
                self._waiting.append(job)
        return {drawing: jobs for drawing, jobs in joining.items() if jobs}

    def _step(self, drawing: Drawing) -> None:
        """Draw an id for each request of a batch, and tell of what there is to tell."""
        ended = drawing.step()
        for request in drawing.requests:
            job = self._going[request]
            if job._codes and len(request.ids) % job._codes == 0:
                job._events.put(self._engine.sketch(job._prepared, request.ids))
        for request in ended:
            job = self._going[request]
            (document,) = self._engine.finish([job._prepared], [request.ids])
            if job._codes:
                job._events.put(document.images[-1])
            if job._future.set_running_or_notify_cancel():
                job._future.set_result(document)
            del self._going[request]
            job._events.put(None)


def _fail(job: Job, error: BaseException) -> None:
    """End a job by an error, unless it is cancelled."""
    if job._future.set_running_or_notify_cancel():
        job._future.set_exception(error)
    job._events.put(None)
