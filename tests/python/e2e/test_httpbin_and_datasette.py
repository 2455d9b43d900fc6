"""Two applications that nobody here wrote, on one port: httpbin (Flask) and datasette (ASGI).

What httpbin can do alone stands in `test_httpbin.py`.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from contextlib import closing
from typing import IO, TYPE_CHECKING

import anyio
import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.wire import StartShared
    from support import Command


@pytest.fixture(scope="module")
def server(start_shared: StartShared, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """httpbin below `/`, datasette below `/data`, an echo below `/echo`."""
    database = tmp_path_factory.mktemp("data") / "teas.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE teas (id INTEGER PRIMARY KEY, name TEXT, hue INTEGER)")
        rows = [(f"tea {number}", number % 360) for number in range(2500)]
        connection.executemany("INSERT INTO teas (name, hue) VALUES (?, ?)", rows)
    environment = {"DATA_FILE": str(database), "DATA_BASE_URL": "/data/"}
    mounts = ("--mount", "/data=apps.data:app()", "--mount", "/echo=apps.echo:wsgi")
    return start_shared("httpbin:app", *mounts, env=environment)


@pytest.fixture(params=["http1", "http2"])
def client(server: Command, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    http2 = request.param == "http2"
    with httpx.Client(
        http1=not http2, http2=http2, base_url=server.url, trust_env=False, timeout=20
    ) as client:
        yield client
        answer = client.get("/status/204")
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")


def test_an_upload_without_a_length(client: httpx.Client) -> None:
    def blocks() -> Iterator[bytes]:
        for number in range(100):
            yield f"block {number:04};".encode()

    # Not to httpbin: it refuses chunked bodies of every server that is not called gunicorn.
    assert client.post("/echo", content=blocks()).content == b"".join(blocks())


# datasette.


def test_the_pages_of_the_asgi_application(client: httpx.Client) -> None:
    home = client.get("/data/")
    assert home.status_code == 200
    assert 'href="/data/teas' in home.text
    table = client.get("/data/teas/teas")
    assert table.status_code == 200
    assert "2,500 rows" in table.text
    style = re.search(r'href="(/data/-/static/app\.css[^"]*)"', table.text)
    assert style
    assert client.get(style[1]).headers["content-type"].startswith("text/css")


def test_queries(client: httpx.Client) -> None:
    query = {
        "sql": "select count(*) as n from teas where hue < :hue",
        "hue": "10",
        "_shape": "array",
    }
    assert client.get("/data/teas.json", params=query).json() == [{"n": 70}]
    row = client.get("/data/teas/teas/7.json", params={"_shape": "objects"}).json()
    assert row["rows"][0]["name"] == "tea 6"


def test_a_table_is_streamed_as_csv(client: httpx.Client) -> None:
    with client.stream("GET", "/data/teas/teas.csv", params={"_stream": "on"}) as answer:
        lines = list(answer.iter_lines())
    assert lines[0] == "id,name,hue"
    assert len(lines) == 2501
    assert lines[-1] == "2500,tea 2499,339"


def test_a_redirect_stays_below_the_mount(client: httpx.Client) -> None:
    answer = client.get("/data/teas/")
    assert answer.status_code in (301, 302, 200)
    if answer.is_redirect:
        assert answer.headers["location"].startswith("/data/")


def test_an_error_page_of_the_asgi_application(client: httpx.Client) -> None:
    answer = client.get("/data/nothing")
    assert answer.status_code == 404
    assert "datasette" in answer.text.lower()


def test_a_mount_ends_at_a_segment(client: httpx.Client) -> None:
    assert "datasette" not in client.get("/database").text.lower()
    assert client.get("/database").status_code == 404


def test_both_at_once_over_one_connection(server: Command) -> None:
    async def ask_all() -> list[int]:
        statuses: list[int] = []

        async with (
            httpx.AsyncClient(
                http1=False, http2=True, base_url=server.url, trust_env=False, timeout=30
            ) as client,
            anyio.create_task_group() as tasks,
        ):

            async def ask(path: str) -> None:
                statuses.append((await client.get(path)).status_code)

            for number in range(30):
                tasks.start_soon(ask, f"/bytes/{number * 1000}")
                tasks.start_soon(ask, f"/data/teas/teas/{number + 1}.json")
        return statuses

    assert anyio.run(ask_all) == [200] * 60


# curl.


def run_curl(
    curl: str, *arguments: str, stdin: IO[str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [curl, "--silent", "--show-error", "--noproxy", "*", "--max-time", "30", *arguments],
        check=True,
        stdin=stdin,
        capture_output=True,
        text=True,
    )


def test_curl_gets_and_heads(server: Command, curl: str) -> None:
    page = run_curl(curl, f"{server.url}/html").stdout
    assert "Herman Melville" in page
    head = run_curl(curl, "-I", f"{server.url}/html").stdout
    assert head.startswith("HTTP/1.1 200 OK")
    assert f"content-length: {len(page.encode())}" in head.lower()
    head = run_curl(curl, "-I", "--http2-prior-knowledge", f"{server.url}/data/").stdout
    assert head.startswith("HTTP/2 200")


def test_curl_uses_one_connection_for_two_urls(server: Command, curl: str) -> None:
    urls = (f"{server.url}/bytes/10000", f"{server.url}/data/teas.json")
    both = run_curl(curl, "--verbose", "--output", "/dev/null", *urls, "--output", "/dev/null")
    assert both.stderr.count("< HTTP/1.1 200") == 2
    assert re.search(r"Re-using existing connection", both.stderr, re.IGNORECASE)


def test_curl_waits_for_100_continue(server: Command, curl: str, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_text("tea " * 200_000)
    waiting = ("--verbose", "--header", "Expect: 100-continue", "--expect100-timeout", "20")
    content = ("--header", "Content-Type: text/plain", "--data-binary", f"@{upload}")
    sent = run_curl(curl, *waiting, *content, f"{server.url}/post")
    assert "HTTP/1.1 100 Continue" in sent.stderr
    assert json.loads(sent.stdout)["data"] == upload.read_text()


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_uploads_what_it_does_not_know_the_length_of(
    server: Command, curl: str, tmp_path: Path, version: str
) -> None:
    upload = tmp_path / "upload"
    upload.write_text("tea " * 50_000)
    with upload.open() as content:
        sent = run_curl(curl, version, "--upload-file", "-", f"{server.url}/echo", stdin=content)
    assert sent.stdout == upload.read_text()


def test_curl_uploads_a_form(server: Command, curl: str, tmp_path: Path) -> None:
    upload = tmp_path / "leaf.txt"
    upload.write_text("a leaf\n")
    form = ("--form", "note=green", "--form", f"leaf=@{upload}")
    answer = json.loads(run_curl(curl, *form, f"{server.url}/post").stdout)
    assert answer["files"] == {"leaf": "a leaf\n"}
    assert answer["form"] == {"note": "green"}


def test_curl_speaks_http_1_0(server: Command, curl: str) -> None:
    lines = run_curl(curl, "--http1.0", f"{server.url}/stream/20").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(20))


def test_curl_follows_redirects_and_keeps_cookies(
    server: Command, curl: str, tmp_path: Path
) -> None:
    jar = ("--cookie-jar", str(tmp_path / "jar"), "--cookie", str(tmp_path / "jar"))
    answer = run_curl(curl, "--location", *jar, f"{server.url}/cookies/set/tea/oolong")
    assert json.loads(answer.stdout) == {"cookies": {"tea": "oolong"}}
