"""The queue with real processes: order, events that replay, cancel, errors, one queue per data folder."""

from __future__ import annotations

import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from studio.errors import BadRequest, JobFailed, UnknownJob
from studio.specs import Failed, Finished, Preview, Progress, Stopped
from tests.studio import fake_work
from tests.studio.fake_work import PATIENCE, Open, kinds, worker_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="waits on FIFOs and kills by signal")


def test_a_job_runs_and_its_events_replay_after_a_reload(open_queue: Open) -> None:
    queue = open_queue()
    job = queue.submit("draw", "a cat")
    live = list(job.events())
    assert [event.step for event in live if isinstance(event, Progress)] == [1, 2, 3, 4]
    assert isinstance(live[-1], Finished)
    again = queue.job(job.id)
    assert list(again.events()) == [event for event in live if not isinstance(event, Preview)]
    assert (again.kind, again.payload, again.state, again.error) == ("draw", "a cat", "done", None)
    assert again.result() == fake_work.result("a cat") == again.latest().result


def test_events_go_on_after_any_number(open_queue: Open) -> None:
    job = open_queue().submit("draw", "x")
    job.result(PATIENCE)
    last, numbered, over = job.wait()
    assert over and last == numbered[-1][0] and len({number for number, _ in numbered}) == len(numbered)
    for number, _ in numbered:
        assert list(job.events(number)) == [event for later, event in numbered if later > number]


def test_the_newest_preview_is_kept_while_the_job_runs(open_queue: Open, gate: Path) -> None:
    job = open_queue().submit("hold", str(gate))
    worker_of(job)
    now = job.latest()
    assert now.preview == Preview(step=0, images=(b"first",)) and now.state == "running" and now.number == 2
    assert isinstance(next(job.events()), Preview)
    gate.write_text("go")
    job.result(PATIENCE)
    assert job.latest().preview is None and job.latest().progress == Progress(phase="sampling", step=1, total=1)


def test_first_come_first_served_and_none_lost_among_many_threads(open_queue: Open, gate: Path) -> None:
    queue = open_queue()
    first = queue.submit("hold", str(gate))
    worker_of(first)
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda index: queue.submit("draw", f"job {index}"), range(24)))
    line = sorted(jobs, key=lambda job: job.latest().ahead)
    assert [job.latest().ahead for job in line] == list(range(1, 25))
    assert queue.jobs() == [*reversed(line), first]
    ended: list[str] = []
    watchers = [threading.Thread(target=lambda job=job: ended.extend(e.kind for e in job.events())) for job in jobs]
    for watcher in watchers:
        watcher.start()
    gate.write_text("go")
    assert [job.result(PATIENCE).request.prompt for job in jobs] == [f"job {index}" for index in range(24)]
    for watcher in watchers:
        watcher.join(PATIENCE)
    assert ended.count("finished") == 24


def test_ids_cannot_be_guessed(open_queue: Open, gate: Path) -> None:
    queue = open_queue()
    ids = {queue.submit("draw", "x").id for _ in range(50)}
    assert len(ids) == 50 and all(re.fullmatch(r"[0-9a-f]{32}", id) for id in ids)
    # Every one of the 32 digits varies, so none is a counter or a clock.
    assert all(len({id[place] for id in ids}) > 4 for place in range(32))
    with pytest.raises(UnknownJob, match="nonsense") as caught:
        queue.job("nonsense")
    assert not any(id in str(caught.value) for id in ids)


def test_a_queued_job_is_cancelled_at_once(open_queue: Open, gate: Path) -> None:
    queue = open_queue()
    running, waiting = queue.submit("hold", str(gate)), queue.submit("draw", "x")
    worker_of(running)
    waiting.cancel()
    assert waiting.state == "cancelled" and list(waiting.events()) == [Stopped()]
    with pytest.raises(JobFailed, match="cancelled") as caught:
        waiting.result()
    assert caught.value.kind == "Stopped"
    gate.write_text("go")
    assert running.result(PATIENCE)
    waiting.cancel()
    running.cancel()
    assert (waiting.state, running.state) == ("cancelled", "done")


def test_a_running_job_heeds_cancel_at_its_next_event_and_cleans_up_first(open_queue: Open, tmp_path: Path) -> None:
    queue = open_queue()
    job, follower = queue.submit("endless", str(tmp_path / "closed")), queue.submit("surprise", "same process?")
    process = worker_of(job)
    job.cancel()
    assert list(job.events())[-1] == Stopped() and (tmp_path / "closed").exists()
    assert worker_of(follower) == process


def test_errors_keep_their_sentence_and_unforeseen_ones_cost_the_process(open_queue: Open) -> None:
    queue = open_queue()
    refused, odd, mute = queue.submit("refuse", "tea"), queue.submit("surprise", "zero"), queue.submit("mute", "hm")
    unknown, fine = queue.submit("dance", ""), queue.submit("draw", "x")
    assert list(refused.events())[-1] == Failed(error="BadRequest", message="No “tea” here.")
    assert list(odd.events())[-1] == Failed(error="ZeroDivisionError", message="Unexpected ZeroDivisionError: zero")
    assert kinds(mute) == ["notice", "failed"] and "without a result" in (mute.error or "")
    assert isinstance(list(unknown.events())[-1], Failed) and "dance" in (unknown.error or "")
    assert fine.result(PATIENCE) == fake_work.result("x")
    # The processes that failed without warning were left before the next job was handed out.
    assert [job.latest().attempts for job in (refused, odd, mute, unknown, fine)] == [1] * 5


def test_a_second_studio_on_the_same_folder_is_refused(open_queue: Open, tmp_path: Path) -> None:
    queue = open_queue()
    with pytest.raises(BadRequest, match=re.escape(str(tmp_path))):
        open_queue()
    queue.close()
    assert open_queue().submit("draw", "x").result(PATIENCE) == fake_work.result("x")


def test_old_jobs_are_forgotten_with_their_events(open_queue: Open) -> None:
    queue = open_queue(keep=3)
    jobs = [queue.submit("draw", str(index)) for index in range(6)]
    jobs[-1].result(PATIENCE)
    queue.submit("draw", "one more").result(PATIENCE)
    assert [job.payload for job in queue.jobs()][:3] == ["one more", "5", "4"] and len(queue.jobs()) <= 4
    with pytest.raises(UnknownJob):
        list(jobs[0].events())


def test_a_result_that_takes_too_long_is_said_so(open_queue: Open, gate: Path) -> None:
    with pytest.raises(TimeoutError, match="0.01"):
        open_queue().submit("hold", str(gate)).result(timeout=0.01)
