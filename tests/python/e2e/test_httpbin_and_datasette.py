"""Two applications that nobody here wrote, on one port: httpbin (Flask) and datasette (ASGI)."""

from __future__ import annotations

import base64
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


# httpbin.


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_methods(client: httpx.Client, method: str) -> None:
    answer = client.request(method.upper(), f"/{method}", params={"a": "1 2", "b": "ü"})
    assert answer.status_code == 200
    assert answer.json()["args"] == {"a": "1 2", "b": "ü"}
    assert answer.json()["url"] == f"{str(client.base_url).rstrip('/')}/{method}?a=1+2&b=ü"


def test_a_method_that_the_route_does_not_know(client: httpx.Client) -> None:
    answer = client.post("/get")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


def test_head_has_the_headers_of_get_and_no_body(client: httpx.Client) -> None:
    head, get = client.head("/html"), client.get("/html")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


def test_options_names_the_methods(client: httpx.Client) -> None:
    answer = client.options("/anything")
    assert answer.status_code == 200
    assert {"GET", "POST", "PUT", "DELETE"} <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize("status", [200, 201, 204, 206, 301, 304, 400, 404, 418, 429, 500, 503])
def test_status_codes(client: httpx.Client, status: int) -> None:
    answer = client.get(f"/status/{status}")
    assert answer.status_code == status
    if status in (204, 304):
        assert answer.content == b""


def test_the_server_error_of_an_application_is_its_own(
    client: httpx.Client, server: Command
) -> None:
    assert client.get("/status/500").status_code == 500
    assert client.get("/status/599").status_code == 599
    assert server.returncode is None


def test_request_headers_arrive(client: httpx.Client) -> None:
    headers = {"x-tea": "Earl Grey", "x-many": "a, b", "user-agent": "tests"}
    seen = client.get("/headers", headers=headers).json()["headers"]
    assert seen["X-Tea"] == "Earl Grey"
    assert seen["X-Many"] == "a, b"
    assert client.get("/user-agent", headers=headers).json() == {"user-agent": "tests"}
    assert client.get("/ip").json() == {"origin": "127.0.0.1"}


def test_response_headers_arrive_also_twice(client: httpx.Client) -> None:
    answer = client.get("/response-headers", params=[("x-tea", "a"), ("x-tea", "b")])
    assert answer.headers.get_list("x-tea") == ["a", "b"]


@pytest.mark.parametrize("kind", ["relative-redirect", "absolute-redirect", "redirect"])
def test_redirects(client: httpx.Client, kind: str) -> None:
    answer = client.get(f"/{kind}/3", follow_redirects=True)
    assert answer.status_code == 200
    assert len(answer.history) == 3
    assert answer.url.path == "/get"


def test_a_redirect_with_a_body(client: httpx.Client) -> None:
    target = {"url": "/post", "status_code": 307}
    answer = client.post("/redirect-to", params=target, data={"a": "1"}, follow_redirects=True)
    assert answer.json()["form"] == {"a": "1"}


def test_cookies(client: httpx.Client) -> None:
    client.get("/cookies/set", params={"a": "1", "b": "2"})
    assert client.get("/cookies").json() == {"cookies": {"a": "1", "b": "2"}}
    client.get("/cookies/delete", params={"a": ""})
    assert client.get("/cookies").json() == {"cookies": {"b": "2"}}


@pytest.mark.parametrize(("path", "flag"), [("gzip", "gzipped"), ("deflate", "deflated")])
def test_encodings_pass_through(client: httpx.Client, path: str, flag: str) -> None:
    answer = client.get(f"/{path}")
    assert answer.headers["content-encoding"] == path
    assert answer.json()[flag] is True


def test_utf8(client: httpx.Client) -> None:
    answer = client.get("/encoding/utf8")
    assert "∮ E⋅da = Q" in answer.text


def test_a_stream_of_lines(client: httpx.Client) -> None:
    with client.stream("GET", "/stream/50") as answer:
        numbers = [json.loads(line)["id"] for line in answer.iter_lines()]
    assert numbers == list(range(50))
    assert "content-length" not in answer.headers


def test_a_body_that_comes_in_drips(client: httpx.Client) -> None:
    answer = client.get("/drip", params={"numbytes": 20, "duration": 0.2, "delay": 0})
    assert answer.content == b"*" * 20
    assert answer.headers["content-length"] == "20"


def test_a_delay(client: httpx.Client) -> None:
    assert client.get("/delay/0.1").status_code == 200


@pytest.mark.parametrize("size", [0, 1, 1024, 100 * 1024])
def test_bytes(client: httpx.Client, size: int) -> None:
    first = client.get(f"/bytes/{size}", params={"seed": 1})
    assert len(first.content) == size
    streamed = client.get(f"/stream-bytes/{size}", params={"seed": 1, "chunk_size": 1000})
    assert streamed.content == first.content


def test_ranges(client: httpx.Client) -> None:
    whole = client.get("/range/1000")
    assert len(whole.content) == 1000
    part = client.get("/range/1000", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == "bytes 10-19/1000"
    assert client.get("/range/1000", headers={"range": "bytes=2000-"}).status_code == 416


def test_conditional_requests(client: httpx.Client) -> None:
    assert client.get("/etag/x", headers={"if-none-match": '"x"'}).status_code in (200, 304)
    cached = client.get("/cache", headers={"if-modified-since": "Sat, 01 Jan 2022 00:00:00 GMT"})
    assert (cached.status_code, cached.content) == (304, b"")


def test_forms_and_files(client: httpx.Client) -> None:
    assert client.post("/post", data={"a": "1", "b": "ü"}).json()["form"] == {"a": "1", "b": "ü"}
    files = {"picture": ("p.txt", b"a picture\n", "text/plain")}
    both = client.post("/post", data={"note": "see"}, files=files).json()
    assert both["files"] == {"picture": "a picture\n"}
    assert both["form"] == {"note": "see"}
    assert client.post("/post", json={"deep": [1, {"a": None}]}).json()["json"] == {
        "deep": [1, {"a": None}]
    }


def test_a_large_upload(client: httpx.Client) -> None:
    content = bytes(range(256)) * 8 * 1024
    echoed = client.post("/post", content=content).json()["data"]
    assert base64.b64decode(echoed.partition(",")[2]) == content


def test_an_upload_without_a_length(client: httpx.Client) -> None:
    def blocks() -> Iterator[bytes]:
        for number in range(100):
            yield f"block {number:04};".encode()

    # Not to httpbin: it refuses chunked bodies of every server that is not called gunicorn.
    assert client.post("/echo", content=blocks()).content == b"".join(blocks())


def test_authentication(client: httpx.Client) -> None:
    refused = client.get("/basic-auth/ada/kettle")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert client.get("/basic-auth/ada/kettle", auth=("ada", "kettle")).status_code == 200
    digest = httpx.DigestAuth("ada", "kettle")
    assert client.get("/digest-auth/auth/ada/kettle", auth=digest).status_code == 200
    bearer = {"authorization": "Bearer tea"}
    assert client.get("/bearer", headers=bearer).json() == {"authenticated": True, "token": "tea"}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/image/png", "image/png"),
        ("/image/jpeg", "image/jpeg"),
        ("/html", "text/html"),
        ("/xml", "application/xml"),
        ("/json", "application/json"),
        ("/robots.txt", "text/plain"),
        ("/brotli", "application/json"),
        ("/uuid", "application/json"),
        ("/links/5/0", "text/html"),
    ],
)
def test_pages_and_pictures(client: httpx.Client, path: str, kind: str) -> None:
    answer = client.get(path, follow_redirects=True)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)


def test_anything_tells_the_path_as_it_came(client: httpx.Client) -> None:
    answer = client.get("/anything/a%20b/%C3%BC", params={"q": "a/b?c"})
    assert answer.json()["url"].endswith("/anything/a%20b/ü?q=a/b?c")
    assert answer.json()["args"] == {"q": "a/b?c"}


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
