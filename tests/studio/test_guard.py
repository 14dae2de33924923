"""The guard, asked as a browser, a script, and a hostile page would ask."""

from __future__ import annotations

import re
import socket
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from studio import guard as guarding
from studio.guard import Guard, GuardMiddleware
from studio.server import build
from studio.settings import Settings
from tests.studio.fake_site import HERE, KEY, Site, client_of, png, submission


@pytest.mark.parametrize(
    ("host", "known"),
    [
        *[("localhost", True), ("LOCALHOST:7860", True), ("127.0.0.1:1", True), ("[::1]:7860", True), ("::1", False)],
        *[("localhost.", True), ("evil.example", False), ("localhost.evil.example", False), ("x@y", False)],
        *[("", False), ("192.168.0.7", False), ("127.0.0.1:80:80", False), ("mine.example:8", True)],
        ("localhost, evil.example", False),
    ],
)
def test_only_own_names_are_answered(site: Site, host: str, known: bool) -> None:
    guard = Guard(["Mine.example"], key=None)
    assert guard.knows(host) == known
    answer = client_of(build(site, guard)).get("/api/v1/health", headers={"Host": host})  # type: ignore[arg-type]
    assert answer.status_code == (200 if known else 403)


@given(st.text())
def test_no_text_is_taken_for_a_name_by_accident(host: str) -> None:
    assert not Guard(["mine.example"]).knows(f"{host}.evil") and not Guard().knows(f"evil.{host}")


def test_a_server_that_listens_everywhere_goes_by_its_addresses_but_not_by_foreign_names() -> None:
    guard = Guard.of(Settings(host="0.0.0.0"))
    assert all(guard.knows(host) for host in ("192.168.0.7:7860", "[fe80::1]", "localhost", socket.gethostname()))
    assert not guard.knows("rebound.example") and not guard.knows("1.2.3.4.evil.example")
    assert not Guard.of(Settings(host="10.0.0.1")).knows("10.0.0.2")


def test_a_key_is_made_beyond_loopback_only() -> None:
    assert Guard.of(Settings()).key is None
    assert Guard.of(Settings(key="my own key")).key == "my own key"
    for settings in (Settings(host="0.0.0.0"), Settings(share=True)):
        first, second = Guard.of(settings).key, Guard.of(settings).key
        assert first and second and first != second and len(first) >= 24


def test_a_share_link_is_accepted_once_it_is_known() -> None:
    guard = Guard.of(Settings(share=True))
    assert not guard.knows("abc.gradio.live")
    guard.allow("abc.gradio.live")
    assert guard.knows("abc.gradio.live") and not guard.knows("xyz.gradio.live")


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": HERE, "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": HERE.replace("http:", "https:")}, True),  # behind a proxy that speaks TLS
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, False),  # a form sent from another site
    ],
)
def test_other_sites_change_nothing(client: TestClient, headers: dict[str, str], allowed: bool) -> None:
    before = len(client.get("/api/v1/jobs?limit=500").json())
    answer = client.post("/api/v1/jobs", json=submission(), headers=headers)
    assert answer.status_code == (202 if allowed else 403)
    assert client.delete("/api/v1/jobs/none", headers=headers).status_code == (404 if allowed else 403)
    assert len(client.get("/api/v1/jobs?limit=500").json()) == before + allowed


def test_other_sites_may_link_here_but_not_embed(client: TestClient) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/api/v1/health", headers={**foreign, "Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert client.get("/api/v1/health", headers={**foreign, "Sec-Fetch-Mode": "no-cors"}).status_code == 403


def test_every_answer_carries_the_security_headers(client: TestClient, locked: TestClient) -> None:
    answers = [
        client.get("/api/v1/health"),
        client.get("/api/v1/nothing"),
        client.get("/api/v1/health", headers={"Host": "evil.example"}),
        locked.get("/", headers={"Accept": "text/html"}),
    ]
    for answer in answers:
        assert guarding.HEADERS.items() <= dict(answer.headers).items()
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_long_bodies_are_refused_whether_they_tell_their_length_or_not(site: Site) -> None:
    small = client_of(build(site, Guard(max_body=1000)))  # type: ignore[arg-type]
    assert small.post("/api/v1/inputs", content=b"x" * 1001).status_code == 413
    chunked = small.post("/api/v1/inputs", content=(b"x" * 100 for _ in range(11)))
    assert chunked.status_code == 413 and "1,000" in chunked.json()["message"]
    assert small.post("/api/v1/inputs", content=png()).status_code == 201
    large = client_of(build(site, Guard()))  # type: ignore[arg-type]
    assert large.post("/api/v1/jobs", json=submission("x" * guarding.MAX_JSON)).status_code == 413
    assert large.post("/api/v1/inputs", headers={"Content-Length": "-1"}).status_code == 413


# ---- the key ---------------------------------------------------------------------------------------------------------


def test_without_the_key_only_health_answers(locked: TestClient) -> None:
    assert locked.get("/api/v1/health").json() == {"status": "ok"}
    for method, path in [("GET", "/"), ("GET", "/api/v1/jobs"), ("POST", "/api/v1/jobs"), ("GET", "/api/v1/health/x")]:
        answer = locked.request(method, path)
        assert answer.status_code == 401 and answer.json()["error"] == "Refused"
        assert "set-cookie" not in answer.headers and KEY not in answer.text


def test_a_script_sends_the_key_as_bearer(locked: TestClient) -> None:
    assert locked.get("/api/v1/jobs", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    for wrong in (f"Bearer {KEY}x", "Bearer ", f"Basic {KEY}", KEY):
        assert locked.get("/api/v1/jobs", headers={"Authorization": wrong}).status_code == 401


def test_a_reader_logs_in_with_the_form(locked: TestClient) -> None:
    page = locked.get("/", headers={"Accept": "text/html,*/*"})
    assert page.status_code == 401 and 'action="/login"' in page.text
    wrong = locked.post("/login", data={"key": "wrong"}, headers={"Origin": HERE})
    assert wrong.status_code == 401 and "not the key" in wrong.text and "set-cookie" not in wrong.headers
    right = locked.post("/login", data={"key": f" {KEY} "}, headers={"Origin": HERE})
    assert right.status_code == 303 and right.headers["location"] == "/"
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and KEY not in cookie
    assert locked.get("/api/v1/jobs").status_code == 200
    # The cookie alone is no leave to change anything: the browser has to say where the request comes from.
    assert locked.post("/api/v1/jobs", json=submission()).status_code == 403
    assert locked.post("/api/v1/jobs", json=submission(), headers={"Origin": HERE}).status_code == 202


def test_a_link_with_the_key_logs_in_and_loses_the_key(locked: TestClient) -> None:
    answer = locked.get("/", params={"key": KEY, "job": '1"><script>'})
    assert answer.status_code == 200 and KEY not in answer.text and "<script>" not in answer.text
    assert 'content="0;url=/?job=1%22%3E%3Cscript%3E"' in answer.text
    assert locked.get("/api/v1/jobs").status_code == 200
    assert locked.get("/", params={"key": "wrong"}).status_code == 401


@given(st.text(alphabet="/\\.:@evil", max_size=12))
def test_a_link_with_the_key_never_leads_to_another_host(path: str) -> None:
    async def nothing(*_: object) -> None:
        raise AssertionError("answered by the guard")

    app = GuardMiddleware(nothing, Guard(key=KEY))
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/" + path,
        "query_string": urlencode({"key": KEY}).encode(),
        "headers": [(b"host", b"localhost")],
        "scheme": "http",
        "server": ("localhost", 80),
    }
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    with pytest.raises(StopIteration):
        app(scope, nothing, send).__await__().send(None)  # type: ignore[arg-type]
    target = re.search(rb'href="([^"]*)"', bytes(sent[1]["body"]))  # type: ignore[call-overload]
    assert target and re.match(rb"/(?![/\\])", target[1])


def test_guessing_is_slow(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = client_of(build(site, Guard(key=KEY)))  # type: ignore[arg-type]
    locked.cookies.set(*Guard(key=KEY).cookie)
    stranger = client_of(locked.app)  # type: ignore[arg-type]
    answers = [stranger.get("/", headers={"Authorization": f"Bearer {guess}"}).status_code for guess in range(12)]
    assert answers == [401] * 10 + [429] * 2
    assert stranger.post("/login", data={"key": KEY}).status_code == 429
    assert locked.get("/api/v1/jobs").status_code == 200  # who is in stays in
    monkeypatch.setattr(guarding, "TRIES_SECONDS", 0.0)  # the minute is over
    assert stranger.post("/login", data={"key": KEY}).status_code == 303


def test_cookies_of_two_studios_on_one_host_live_side_by_side() -> None:
    (one, first), (two, second) = Guard(key="key number 1").cookie, Guard(key="key number 2").cookie
    assert one != two and first != second


# ---- behind the guard ------------------------------------------------------------------------------------------------


def mounted(site: Site, guard: Guard) -> TestClient:
    """A second application mounted at the root, as the page is."""
    page = FastAPI()

    @page.post("/upload")
    async def upload(request: Request) -> int:
        return len(await request.body())

    @page.websocket("/talk")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    app = build(site, guard)  # type: ignore[arg-type]
    app.mount("/", page)
    return client_of(app)


def test_the_page_is_behind_the_same_guard(site: Site) -> None:
    client = mounted(site, Guard(key=KEY, max_body=1000))
    bearer = {"Authorization": f"Bearer {KEY}"}
    assert client.post("/upload", content=b"123").status_code == 401
    assert client.post("/upload", content=b"123", headers=bearer).json() == 3
    assert client.post("/upload", content=b"1", headers={**bearer, "Origin": "http://evil.example"}).status_code == 403
    assert client.post("/upload", content=(b"x" * 100 for _ in range(11)), headers=bearer).status_code == 413
    assert client.get("/api/v1/nothing", headers=bearer).json()["error"] == "NotFound"


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://evil.example", "Authorization": f"Bearer {KEY}"}, {"Host": "evil.example"}]
)
def test_websockets_are_guarded_too(site: Site, headers: dict[str, str]) -> None:
    client = mounted(site, Guard(key=KEY))
    with client.websocket_connect("ws://127.0.0.1:7860/talk", headers={"Authorization": f"Bearer {KEY}"}) as talk:
        assert talk.receive_text() == "hello"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://127.0.0.1:7860/talk", headers=headers):
        pytest.fail("let in")
