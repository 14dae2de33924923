"""The HTTP API: submit, follow, cancel, fetch; every error one sentence."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from studio.guard import Guard
from studio.server import build
from tests.studio import fake_work
from tests.studio.fake_site import KEY, Site, png, submission


def lines(answer: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(line) for line in answer.text.splitlines() if line]


def test_submit_follow_and_read_a_job(client: TestClient) -> None:
    answer = client.post("/api/v1/jobs", json=submission())
    assert answer.status_code == 202
    place = answer.headers["Location"]
    stream = client.get(f"{place}/events")
    assert stream.headers["content-type"].startswith("application/x-ndjson")
    kinds = [line["event"]["kind"] for line in lines(stream)]
    assert kinds[-1] == "finished" and kinds.count("progress") == 4
    now = client.get(place).json()
    assert now["state"] == "done" and now["result"] == json.loads(fake_work.result("a cat").model_dump_json())
    listed = client.get("/api/v1/jobs?limit=1").json()
    assert [job["id"] for job in listed] == [now["id"]] and "preview" not in listed[0]


def test_a_cut_stream_goes_on_where_it_was(client: TestClient) -> None:
    place = client.post("/api/v1/jobs", json=submission()).headers["Location"]
    client.get(f"{place}/events")
    whole = lines(client.get(f"{place}/events?previews=false"))
    for index, line in enumerate(whole):
        assert lines(client.get(f"{place}/events?after={line['number']}")) == whole[index + 1 :]


def test_delete_cancels(client: TestClient, tmp_path: Path) -> None:
    first = client.post("/api/v1/jobs", json=submission(str(tmp_path / "closed"), "endless")).headers["Location"]
    second = client.post("/api/v1/jobs", json=submission()).headers["Location"]
    assert client.delete(second).json()["state"] == "cancelled"
    assert client.delete(first).status_code == 200
    assert lines(client.get(f"{first}/events"))[-1]["event"] == {"kind": "stopped"}


def test_pictures_come_as_they_were_saved(client: TestClient, site: Site) -> None:
    (site.gallery.outputs / "day").mkdir(parents=True, exist_ok=True)
    (site.gallery.outputs / "day" / "1.png").write_bytes(png())
    answer = client.get("/api/v1/pictures/day/1.png")
    assert answer.content == png() and answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["../studio.sqlite3", "..%2fstudio.sqlite3", "%2e%2e/studio.sqlite3", "day", "no.png"])
def test_pictures_never_leave_their_folder(client: TestClient, name: str) -> None:
    answer = client.get(f"/api/v1/pictures/{name}")
    assert answer.status_code == 404 and set(answer.json()) == {"error", "message"}


def test_inputs_are_kept_by_digest(client: TestClient, site: Site) -> None:
    answer = client.post("/api/v1/inputs", content=png())
    assert answer.status_code == 201 and site.gallery.kept(answer.json()["digest"]).size == (8, 8)
    assert client.post("/api/v1/inputs", content=b"no picture").json()["error"] == "BadFile"


@pytest.mark.parametrize(
    ("body", "status", "error", "sentence"),
    [
        (submission(base="nowhere"), 400, "BadRequest", "nowhere.*choose one of"),
        (submission(steps=900), 422, "BadRequest", "request.steps.*900.*200"),
        (submission(nonsense=1), 422, "BadRequest", "request.nonsense"),
        (submission(base="full"), 507, "StorageFull", "disk is full"),
        (submission(base="bug"), 500, "ZeroDivisionError", "log"),
        ({"kind": "dance", "request": {}}, 422, "BadRequest", "kind.*dance"),
        ({}, 422, "BadRequest", "request"),
    ],
)
def test_errors_are_one_sentence(
    client: TestClient, body: dict[str, object], status: int, error: str, sentence: str
) -> None:
    answer = client.post("/api/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert re.search(sentence, answer.json()["message"]) and "secret detail" not in answer.text


@pytest.mark.parametrize("path", ["/api/v1/jobs/none", "/api/v1/jobs/none/events", "/api/v1/nothing", "/api/nothing"])
def test_what_is_not_there_is_404_in_a_sentence(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and answer.json()["message"].startswith("There is no")


@pytest.fixture
def served(site: Site) -> Iterator[str]:
    """The address of a real server on a real port."""
    config = uvicorn.Config(build(site, Guard(key=KEY)), port=0, log_level="error", lifespan="off")  # type: ignore[arg-type]
    server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_a_real_server_streams_events_as_they_come(served: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with httpx.Client(base_url=served, headers={"Authorization": f"Bearer {KEY}"}, timeout=20) as client:
        place = client.post("/api/v1/jobs", json=submission(str(gate), "hold")).headers["Location"]
        with client.stream("GET", f"{place}/events") as stream:
            coming = stream.iter_lines()
            assert [json.loads(next(coming))["event"]["kind"] for _ in range(2)] == ["preview", "notice"]
            assert client.get(place).json()["state"] == "running"  # the stream is open, the job is held
            gate.write_text("go")
            assert [json.loads(line)["event"]["kind"] for line in coming if line] == ["progress", "finished"]


def test_a_follower_that_leaves_holds_nothing_up(served: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with httpx.Client(base_url=served, headers={"Authorization": f"Bearer {KEY}"}, timeout=20) as client:
        place = client.post("/api/v1/jobs", json=submission(str(gate), "hold")).headers["Location"]
        for _ in range(5):
            with client.stream("GET", f"{place}/events") as stream:
                next(stream.iter_lines())
        gate.write_text("go")
        assert json.loads(client.get(f"{place}/events").text.splitlines()[-1])["event"]["kind"] == "finished"
