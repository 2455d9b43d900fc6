"""What is wrapped around Flask: Werkzeug's debugger, and flask-session's sessions on the server."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.wire import StartShared
    from support import Command

PIN = "123-456-789"
PREFIX = "/below/it"


def new_client(url: str, *, http2: bool = False) -> httpx.Client:
    return httpx.Client(
        base_url=url, http1=not http2, http2=http2, trust_env=False, verify=False, timeout=20
    )


# Werkzeug's debugger.


@pytest.fixture(scope="module")
def debugged(start_shared: StartShared) -> Command:
    application = "apps.debugged:application"
    environment = {"WERKZEUG_DEBUG_PIN": PIN}
    return start_shared(application, "--mount", f"{PREFIX}={application}", env=environment)


@pytest.fixture(params=["http1", "http2", "below"])
def client(debugged: Command, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    url = debugged.url + (PREFIX if request.param == "below" else "")
    with new_client(url, http2=request.param == "http2") as client:
        yield client


def secret(page: httpx.Response) -> str:
    found = re.search(r'SECRET = "(\w+)"', page.text)
    assert found
    return found[1]


def unlock(client: httpx.Client, page: httpx.Response) -> None:
    command = {"__debugger__": "yes", "cmd": "pinauth", "pin": PIN, "s": secret(page)}
    assert client.get("/", params=command).json() == {"auth": True, "exhausted": False}


def test_pages_pass_through_the_debugger(client: httpx.Client) -> None:
    answer = client.post("/", params={"a": "1"}, data={"b": "ü"})
    assert answer.json() == {"args": {"a": "1"}, "form": {"b": "ü"}}
    assert answer.headers["content-length"] == str(len(answer.content))
    content = bytes(range(256)) * 2000
    assert client.post("/upload", content=content).content == content
    assert client.get("/stream").text == "first second third"
    head = client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert (client.get("/empty").status_code, client.get("/nothing").status_code) == (204, 404)


def test_an_exception_is_a_page_with_its_traceback(client: httpx.Client, debugged: Command) -> None:
    after = len(debugged.lines)
    page = client.get("/fail")
    assert page.status_code == 500
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>LookupError: no tea: boiled dry" in page.text
    assert 'in <code class="function">fail</code>' in page.text
    assert secret(page)
    # Also in `wsgi.errors`, and so in the log.
    debugged.wait_for_line("LookupError: no tea: boiled dry", after=after)


def test_an_exception_after_the_head_is_written_to_the_log(
    client: httpx.Client, debugged: Command
) -> None:
    after = len(debugged.lines)
    answer = client.get("/stream", params={"last": "fail"})
    # What the debugger makes of it: it swallows the exception, since it cannot send its page.
    assert (answer.status_code, answer.text) == (200, "first second ")
    debugged.wait_for_line("caught exception in streamed response", after=after)
    debugged.wait_for_line("LookupError: no third piece", after=after)


def test_the_resources_of_the_page(client: httpx.Client) -> None:
    page = client.get("/fail")
    links = re.findall(r'(?:href|src)="(\?__debugger__=yes[^"]+)"', page.text)
    kinds = {"css": "text/css", "png": "image/png", "js": ("text/javascript", "application/jav")}
    assert len(links) == 3
    for link in links:
        # Relative to the page that failed, wherever that is.
        query = link.replace("&amp;", "&")
        resource = client.get(f"/fail{query}")
        assert resource.headers["content-type"].startswith(kinds[query.rpartition(".")[2]])
        assert int(resource.headers["content-length"]) == len(resource.content) > 100
        tag = {"if-none-match": resource.headers["etag"]}
        again = client.get(f"/fail{query}", headers=tag)
        assert (again.status_code, again.content) == (304, b"")
    assert client.get("/fail?__debugger__=yes&cmd=resource&f=none.js").status_code == 404


def test_code_runs_in_a_frame_of_the_exception_once_the_pin_is_known(
    client: httpx.Client,
) -> None:
    page = client.get("/fail", params={"tea": "green"})
    frame = re.findall(r'id="frame-(\d+)"', page.text)[-1]

    def run(code: str) -> httpx.Response:
        command = {"__debugger__": "yes", "cmd": code, "frm": frame, "s": secret(page)}
        return client.get("/", params=command)

    # Without the PIN it is a request to the application like any other.
    assert run("kettle").json()["args"]["cmd"] == "kettle"
    unlock(client, page)
    assert "boiled dry" in run("kettle").text
    assert "boiled dry twice" in run("print(kettle + ' twice')").text
    # Flask's context belongs to the frame, on whatever thread that is now.
    assert "green" in run("request.args['tea']").text
    assert "ZeroDivisionError" in run("1 / 0").text


def test_the_console_keeps_what_it_is_told(client: httpx.Client) -> None:
    page = client.get("/console")
    assert "Interactive Console" in page.text
    unlock(client, page)

    def run(code: str) -> str:
        command = {"__debugger__": "yes", "cmd": code, "frm": "0", "s": secret(page)}
        return client.get("/console", params=command).text

    run("cups = 5")
    assert ">6<" in run("cups + 1")
    strangers = client.get("/console", headers={"host": "tea.example"})
    assert strangers.status_code == 400


def test_a_wrong_pin_opens_nothing(debugged: Command) -> None:
    with new_client(debugged.url) as client:
        page = client.get("/console")
        command = {"__debugger__": "yes", "cmd": "pinauth", "pin": "1", "s": secret(page)}
        assert client.get("/", params=command).json() == {"auth": False, "exhausted": False}
        assert not client.cookies


# flask-session.


@pytest.fixture(scope="module")
def sessions(start_shared: StartShared, tmp_path_factory: pytest.TempPathFactory) -> Command:
    environment = {"SESSIONS": str(tmp_path_factory.mktemp("sessions"))}
    mounts = ("/files=apps.sessions:files", "/database=apps.sessions:database")
    arguments = [argument for mount in mounts for argument in ("--mount", mount)]
    return start_shared(*arguments, env=environment)


@pytest.fixture(params=["files", "database"])
def kept_in(sessions: Command, request: pytest.FixtureRequest) -> str:
    """The address of the application whose sessions are kept there."""
    return f"{sessions.url}/{request.param}"


def log_in(client: httpx.Client, user: str = "ada") -> None:
    answer = client.post("/login", data={"user": user, "password": "kettle"})
    assert answer.status_code == 204
    assert "HttpOnly" in answer.headers["set-cookie"]


def test_a_login_lasts_until_the_logout(kept_in: str) -> None:
    with new_client(kept_in) as client:
        wrong = {"user": "ada", "password": "pot"}
        assert client.post("/login", data=wrong).status_code == 403
        assert client.get("/user").json()["user"] is None
        client.post("/count")
        (before,) = client.cookies.values()
        log_in(client)
        (after,) = client.cookies.values()
        assert before != after
        for _ in range(5):
            answer = client.get("/user")
            assert answer.json() == {"user": "ada", "count": 1}
            assert answer.headers["vary"] == "Cookie"
        client.post("/logout")
        assert client.get("/user").json() == {"user": None, "count": 0}
        client.cookies.set("session-files", before)
        client.cookies.set("session-database", before)
        assert client.get("/user").json() == {"user": None, "count": 0}


def test_a_login_is_known_to_every_thread(kept_in: str) -> None:
    with new_client(kept_in) as client, ThreadPoolExecutor(8) as executor:
        log_in(client)
        met = list(executor.map(lambda _: client.get("/meet/8").json(), range(8)))
    assert {one["user"] for one in met} == {"ada"}
    assert len({one["thread"] for one in met}) == 8


def test_sessions_do_not_mix_when_all_come_at_once(kept_in: str) -> None:
    def use(number: int) -> dict[str, object]:
        with new_client(kept_in) as client:
            log_in(client, f"user {number}")
            for _ in range(10):
                client.post("/count")
            return client.get("/user").json()

    with ThreadPoolExecutor(8) as executor:
        for number, seen in enumerate(executor.map(use, range(8))):
            assert seen == {"user": f"user {number}", "count": 10}


def test_one_session_is_written_by_many_requests_at_once(kept_in: str) -> None:
    with new_client(kept_in) as client, ThreadPoolExecutor(8) as executor:
        log_in(client)
        written = list(executor.map(lambda _: client.post("/count"), range(40)))
        # The last to write wins, by flask-session's design; none may break it.
        assert {answer.status_code for answer in written} == {200}
        seen = client.get("/user").json()
        assert seen["user"] == "ada"
        assert 1 <= seen["count"] <= 40
