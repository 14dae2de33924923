"""The queue with real processes: jobs survive killed workers and a killed studio, and are never lost or swapped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio import supervisor
from studio.errors import BadRequest, JobFailed, StorageFull, UnknownJob
from studio.jobs import Job, Queue
from studio.settings import Settings
from studio.specs import Failed, Finished, Notice, Preview, Progress, Stopped
from tests.studio import fake_work

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="waits on FIFOs and kills by signal")
PATIENCE = 20.0
Open = Callable[..., Queue]


@pytest.fixture
def open_queue(tmp_path: Path) -> Iterator[Open]:
    queues = []

    def build(**options: Any) -> Queue:
        settings = Settings(data_dir=tmp_path)
        queue = Queue(tmp_path / "studio.sqlite3", settings, **{"entry": fake_work.ENTRY, "grace": 10.0, **options})
        queues.append(queue)
        return queue

    yield build
    for queue in queues:
        queue.close()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.events()]


def worker_of(job: Job, seen: int = 0) -> int:
    """Wait until the job tells the process it runs in, after event number `seen`."""
    for event in job.events(seen):
        if isinstance(event, Notice) and (found := re.fullmatch(r"pid (\d+)", event.text)):
            return int(found[1])
    raise AssertionError("the job ended without telling its process")


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


def test_a_killed_worker_is_replaced_and_the_job_comes_back_once(open_queue: Open, gate: Path) -> None:
    queue = open_queue()
    job, follower = queue.submit("hold", str(gate)), queue.submit("draw", "after")
    first = worker_of(job)
    seen = job.latest().number
    os.kill(first, 9)
    second = worker_of(job, seen)
    assert second != first and job.latest().attempts == 2 and follower.state == "queued"
    assert "signal 9" in job.latest().notices[1] and "starts again" in job.latest().notices[1]
    gate.write_text("go")
    assert job.result(PATIENCE) == fake_work.result(str(gate))
    assert follower.result(PATIENCE) == fake_work.result("after")


def test_the_second_death_fails_the_job_with_the_reason(open_queue: Open, tmp_path: Path) -> None:
    (tmp_path / "deaths").touch()
    queue = open_queue()
    job, follower = queue.submit("crash", f"9 {tmp_path / 'deaths'}"), queue.submit("draw", "after")
    with pytest.raises(JobFailed, match=r"signal 9 .*second try"):
        job.result(PATIENCE)
    assert (tmp_path / "deaths").read_text() == "xx" and job.state == "failed" and "signal 9" in (job.error or "")
    assert kinds(job) == ["progress", "notice", "progress", "failed"]
    assert follower.result(PATIENCE) == fake_work.result("after")


def test_a_worker_that_cannot_start_fails_the_job_with_its_exit_code(open_queue: Open) -> None:
    job = open_queue(entry=f"{fake_work.__name__}:broken").submit("draw", "x")
    with pytest.raises(JobFailed, match="exit code 3"):
        job.result(PATIENCE)


def test_a_failed_warm_up_does_not_stop_the_work(open_queue: Open) -> None:
    assert open_queue(entry=f"{fake_work.__name__}:cold").submit("draw", "x").result(PATIENCE) == fake_work.result("x")


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


def test_a_worker_that_does_not_heed_cancel_is_replaced(open_queue: Open, gate: Path) -> None:
    queue = open_queue(grace=0.05)
    job, follower = queue.submit("hold", str(gate)), queue.submit("draw", "after")
    process = psutil.Process(worker_of(job))
    job.cancel()
    assert list(job.events())[-1] == Stopped() and job.latest().attempts == 1
    assert follower.result(PATIENCE) == fake_work.result("after")
    process.wait(PATIENCE)


def test_a_cancelled_job_does_not_come_back_when_its_worker_dies(open_queue: Open, gate: Path) -> None:
    job = open_queue().submit("hold", str(gate))
    process = worker_of(job)
    os.kill(process, 19)  # stopped: it can neither heed nor answer
    job.cancel()
    os.kill(process, 9)
    assert kinds(job)[-1] == "stopped" and job.latest().attempts == 1


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


PARENT = """
import sys
from pathlib import Path
from studio.errors import JobFailed
from studio.jobs import Queue
from studio.settings import Settings

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    queue = Queue(folder / "studio.sqlite3", Settings(data_dir=folder), entry="tests.studio.fake_work:main")
    job = queue.job(sys.argv[2]) if len(sys.argv) > 2 else queue.submit("hold", str(folder / "gate"))
    for event in job.events(job.latest().number):
        if event.kind == "notice" and event.text.startswith("pid"):
            print(job.id, event.text.split()[1], flush=True)
    print(job.error)
"""


def run_script(text: str, folder: Path, *job: str) -> subprocess.Popen[str]:
    """Start a script that opens a studio on the folder."""
    (folder / "parent.py").write_text(text)
    command = [sys.executable, str(folder / "parent.py"), str(folder), *job]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def crashed_parent(folder: Path, *job: str) -> tuple[str, psutil.Process]:
    """Run a studio in another process until its job runs, then kill it; give back the job and the orphan."""
    with run_script(PARENT, folder, *job) as parent:
        assert parent.stdout
        id, pid = parent.stdout.readline().split()
        orphan = psutil.Process(int(pid))
        parent.kill()
    return id, orphan


def test_jobs_of_a_killed_studio_come_back_once_and_its_worker_ends(open_queue: Open, gate: Path) -> None:
    id, orphan = crashed_parent(gate.parent)
    orphan.wait(PATIENCE)
    job = open_queue().job(id)
    worker_of(job, 3)
    assert job.latest().attempts == 2 and "studio ended" in job.latest().notices[1]
    gate.write_text("go")
    assert job.result(PATIENCE) == fake_work.result(str(gate))


def test_a_job_that_was_running_in_two_killed_studios_fails(open_queue: Open, gate: Path) -> None:
    id, _ = crashed_parent(gate.parent)
    crashed_parent(gate.parent, id)
    job = open_queue().job(id)
    assert job.state == "failed" and "studio ended" in (job.error or "")


def test_closing_puts_the_running_job_back_without_counting_it(open_queue: Open, gate: Path) -> None:
    queue = open_queue()
    job, waiting = queue.submit("hold", str(gate)), queue.submit("draw", "x")
    process = psutil.Process(worker_of(job))
    told: list[str] = []

    def watch() -> None:
        with pytest.raises(JobFailed, match="was closed"):
            list(job.events(2))
        told.append("closed")

    watcher = threading.Thread(target=watch)
    watcher.start()
    queue.close()
    watcher.join(PATIENCE)
    assert told == ["closed"] and not process.is_running()
    with pytest.raises(JobFailed, match="was closed"):
        queue.submit("draw", "y")
    later = open_queue()
    worker_of(later.job(job.id), 2)
    assert later.job(job.id).latest().attempts == 1
    gate.write_text("go")
    assert later.job(waiting.id).result(PATIENCE) == fake_work.result("x")


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


def test_a_script_without_main_guard_is_told_and_still_ends(tmp_path: Path) -> None:
    done = run_script(PARENT.replace('if __name__ == "__main__":', "if True:"), tmp_path)
    out, errors = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0 and "exit code 1" in out and "__main__" in errors


def test_a_full_disk_loses_no_event(open_queue: Open, gate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried_again = threading.Event()
    monkeypatch.setattr(supervisor, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(supervisor.log, "error", lambda *_: tried_again.set())
    queue = open_queue()
    job = queue.submit("talk", str(gate))
    next(job.events())
    with queue.store.still():
        pages = queue.store._connection.execute("PRAGMA page_count").fetchone()[0]
        queue.store._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    gate.write_text("go")
    assert tried_again.wait(PATIENCE)
    with pytest.raises(StorageFull, match="full"):
        queue.submit("draw", "x" * 100_000)
    with queue.store.still():
        queue.store._connection.execute("PRAGMA max_page_count = 1000000")
    assert job.result(PATIENCE) and [len(text) for text in job.latest().notices] == [4, 200_000]
