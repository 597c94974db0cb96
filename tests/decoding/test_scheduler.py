import threading
from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest

from cm3leon.decoding.drawing import Drawing
from cm3leon.decoding.scheduler import Scheduler
from cm3leon.errors import RequestError
from cm3leon.tokens.document import Document, Image, Text

PICTURE = Image(codes=tuple(range(16)))
NEIGHBOURS = [Document(Text(f"number {n}"), PICTURE) for n in range(2)]


@pytest.fixture
def asked(options):
    """Of several kinds, with and without neighbours, guided and not."""
    several = []
    for number, words in enumerate(["a red apple", "b", "a blue car from the side"]):
        seeded = replace(options, seed=number)
        document = Document(Text(words))
        several += [
            (document, seeded, "image", []),
            (document, replace(seeded, guidance_scale=1.0), "image", NEIGHBOURS[:1]),
            (document, replace(seeded, temperature=0.5), "image", NEIGHBOURS[1:]),
            (document, seeded, "text", []),
        ]
    return several


def begin(scheduler, request, rows=0):
    document, options, want, neighbours = request
    return scheduler.extend(document, options, want, neighbours=neighbours, rows=rows)


def alone(engine, request):
    document, options, want, neighbours = request
    return engine.extend([document], options, want, neighbours=[neighbours])[0]


def parts(document):
    return [
        segment.codes if isinstance(segment, Image) else segment.text
        for segment in document.segments
    ]


@pytest.mark.parametrize("places", [1, 2, 16])
def test_each_gets_what_it_would_alone_whenever_it_joins(engine, asked, places):
    with Scheduler(engine, places) as scheduler:
        first = begin(scheduler, asked[0], rows=1)
        next(iter(first))  # it is running now
        jobs = [first, *(begin(scheduler, request) for request in asked[1:])]
        results = [job.result(60.0) for job in jobs]
    for request, result in zip(asked, results, strict=True):
        assert parts(result) == parts(alone(engine, request))


def test_pictures_come_while_it_is_drawn(engine, asked):
    document, options, *_ = asked[0]
    wanted = list(engine.stream(document, options, neighbours=[], rows=2))
    with Scheduler(engine) as scheduler:
        job = begin(scheduler, asked[0], rows=2)
        pictures = list(job)
        assert job.result().images[-1].codes == pictures[-1].codes == wanted[-1].codes
    for ours, theirs in zip(pictures, wanted, strict=True):
        assert np.array_equal(ours.pixels, theirs.pixels)


def test_one_that_is_cancelled_frees_its_place(engine, asked):
    with Scheduler(engine, 1) as scheduler:
        running = begin(scheduler, asked[0], rows=1)
        waiting = begin(scheduler, asked[4])
        never = begin(scheduler, asked[8])
        pictures = iter(running)
        next(pictures)
        assert running.cancel()
        assert never.cancel()
        assert parts(waiting.result(60.0)) == parts(alone(engine, asked[4]))
        assert len(list(pictures)) < round(engine.codec.codes_per_image**0.5)
        assert list(never) == []
        with pytest.raises(CancelledError):
            running.result(60.0)
        assert not waiting.cancel()


def test_closing_ends_what_is_not_done(engine, asked):
    scheduler = Scheduler(engine, 1)
    jobs = [begin(scheduler, request, rows=1) for request in asked[:3]]
    next(iter(jobs[0]))
    scheduler.close()
    assert all(job.done for job in jobs)
    with pytest.raises(CancelledError):
        jobs[2].result(60.0)
    with pytest.raises(RequestError, match="closed"):
        begin(scheduler, asked[0])
    assert not any(t.name == "cm3leon-scheduler" for t in threading.enumerate())


def test_what_fails_in_the_thread_is_told_to_whoever_waits(engine, asked, monkeypatch):
    def fail(*_):
        raise OSError("no pixels today")

    monkeypatch.setattr(type(engine), "finish", fail)
    with Scheduler(engine) as scheduler:
        job = begin(scheduler, asked[0])
        with pytest.raises(OSError, match="no pixels today"):
            job.result(60.0)


@pytest.mark.parametrize("what", ["join", "step"])
@pytest.mark.parametrize("failing", [0, 3], ids=["guided pictures", "text"])
def test_a_batch_that_fails_takes_no_other_with_it(
    plain, asked, monkeypatch, what, failing
):
    """Nor the next of its kind, although it fails when its work is half done."""
    requests = asked[:4]
    lane_counts = [2, 1, 2, 1]
    kinds = [(one[2], n) for one, n in zip(requests, lane_counts, strict=True)]
    whole, errors = getattr(Drawing, what), [OSError("no memory today")]

    def fail(self, *joining):
        kind = self._constraint.kind, self._lanes._room.lanes
        found = whole(self, *joining)
        if errors and kind == kinds[failing]:
            raise errors.pop()
        return found

    monkeypatch.setattr(Drawing, what, fail)
    with Scheduler(plain) as scheduler:
        with scheduler._changed:  # so that all are taken in one round
            jobs = [begin(scheduler, request, rows=1) for request in requests]
        for request, job, kind in zip(requests, jobs, kinds, strict=True):
            if kind == kinds[failing]:
                with pytest.raises(OSError, match="no memory today"):
                    job.result(60.0)
                assert list(job) == []  # it is not waited for ever either
                job = begin(scheduler, request)
            assert parts(job.result(60.0)) == parts(alone(plain, request))


def test_bad_requests_are_refused_at_once(engine, asked):
    with pytest.raises(RequestError, match="places is 0, below 1"):
        Scheduler(engine, 0)
    with Scheduler(engine) as scheduler:
        with pytest.raises(RequestError, match="rows is -1, below 0"):
            begin(scheduler, asked[0], rows=-1)
        with pytest.raises(RequestError, match="window is 4, and in a running batch"):
            scheduler.extend(asked[0][0], replace(asked[0][1], window=4))
        with pytest.raises(RequestError, match="the document is empty"):
            scheduler.extend(Document())
