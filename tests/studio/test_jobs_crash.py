"""The queue under fire: workers killed, hung or broken, studios killed, closed or out of disk."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from studio import supervisor
from studio.errors import JobFailed, StorageFull
from studio.specs import Stopped
from tests.studio import fake_work
from tests.studio.fake_work import PATIENCE, Open, kinds, worker_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="waits on FIFOs and kills by signal")


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


def test_a_script_without_main_guard_is_told_and_still_ends(tmp_path: Path) -> None:
    done = run_script(PARENT.replace('if __name__ == "__main__":', "if True:"), tmp_path)
    out, errors = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0 and "exit code 1" in out and "__main__" in errors


def test_a_script_that_closes_nothing_still_ends(tmp_path: Path) -> None:
    done = run_script(PARENT.replace('"hold", str(folder / "gate")', '"draw", "x"'), tmp_path)
    assert done.communicate(timeout=PATIENCE) == ("None\n", "") and done.returncode == 0


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
