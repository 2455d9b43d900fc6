"""The whole of httpbin, every route with every method, by both protocols and below a prefix.

Each test declares by `drives` what it drives of httpbin. Its client sees that this is true, and one
test compares all the declarations with httpbin's own URL map: a route that nothing drives fails.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import time
import uuid
import zlib
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar
from xml.etree import ElementTree as ET

import httpx
import pytest
from httpbin import app as httpbin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.wire import StartShared
    from support import Command

    Test = TypeVar("Test", bound=Callable[..., object])

PREFIX = "/below/it"
# Both are Flask's own work, and a test for each looks at every route.
AUTOMATIC = {"HEAD", "OPTIONS"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE")
# What stands for the variables of a route where any value will do.
EXAMPLE = {
    "algorithm": "MD5",
    "anything": "a/b",
    "codes": "201",
    "delay": "0",
    "etag": "tea",
    "filename": "favicon.ico",
    "n": "2",
    "name": "tea",
    "numbytes": "100",
    "offset": "1",
    "passwd": "kettle",
    "qop": "auth",
    "stale_after": "never",
    "user": "ada",
    "value": "60",
}

declared: defaultdict[str, set[str]] = defaultdict(set)


def drives(*routes: str, methods: tuple[str, ...] = ("GET",)) -> Callable[[Test], Test]:
    """Declares the routes, as httpbin writes them, that a test drives by each of `methods`."""

    def declare(test: Test) -> Test:
        declared[test.__name__] |= {f"{method} {route}" for method in methods for route in routes}
        return test

    return declare


@pytest.fixture(scope="module")
def server(start_shared: StartShared) -> Command:
    return start_shared("httpbin:app", "--mount", f"{PREFIX}=httpbin:app")


@pytest.fixture(params=["http1", "http2", "below"])
def client(server: Command, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    http2 = request.param == "http2"
    prefix = PREFIX if request.param == "below" else ""
    routes = httpbin.url_map.bind("", "/")
    driven: set[str] = set()

    def note(sent: httpx.Request) -> None:
        path = sent.url.path.removeprefix(prefix)
        if sent.method not in AUTOMATIC and routes.test(path, sent.method):
            rule, _ = routes.match(path, sent.method, return_rule=True)
            driven.add(f"{sent.method} {rule.rule}")

    with httpx.Client(
        http1=not http2,
        http2=http2,
        base_url=f"{server.url}{prefix}",
        trust_env=False,
        # Which certificates it would believe takes longer to read than most tests take.
        verify=False,
        timeout=20,
        event_hooks={"request": [note]},
    ) as client:
        yield client
        assert client.head("/uuid").http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert declared[request.function.__name__] <= driven, "declared, and not driven"


@pytest.fixture
def base(client: httpx.Client) -> str:
    """Where httpbin is, without a slash at the end."""
    return str(client.base_url).rstrip("/")


def test_every_route_and_method_of_httpbin_is_driven_here() -> None:
    defined = {
        f"{method} {rule.rule}"
        for rule in httpbin.url_map.iter_rules()
        for method in (rule.methods or set()) - AUTOMATIC
    }
    assert set[str]().union(*declared.values()) == defined


def examples(method: str) -> Iterator[str]:
    """A path for each route that has `method`."""
    routes = httpbin.url_map.bind("", "/")
    for rule in httpbin.url_map.iter_rules():
        if method in (rule.methods or set()):
            path = re.sub(r"<(?:\w+:)?(\w+)>", lambda match: EXAMPLE[match[1]], rule.rule)
            if rule.endpoint == "flasgger.static":
                path = "/flasgger_static/favicon-16x16.png"
            assert routes.match(path, method, return_rule=True)[0] is rule
            yield path


# Flask's own work.

# Routes whose body tells the method.
DIFFERS = ("/anything", "/gzip", "/deflate", "/brotli")


def test_head_has_the_headers_of_get_and_no_body(client: httpx.Client) -> None:
    with_length = 0
    for path in examples("HEAD"):
        # A second of dripping is enough to see that nobody waits for it.
        query = {"duration": "60", "numbytes": "2"} if path == "/drip" else {"url": "/get"}
        head = client.head(path, params=query)
        assert head.content == b""
        with client.stream("GET", path, params=query) as get:
            assert head.status_code == get.status_code, path
            assert head.headers.get("content-type") == get.headers.get("content-type"), path
            assert head.headers.get("location") == get.headers.get("location"), path
            if not path.startswith(DIFFERS):
                length = get.headers.get("content-length")
                assert head.headers.get("content-length") == length or length is None, path
                with_length += length is not None
    assert with_length > 40


def test_options_names_the_methods_of_every_route(client: httpx.Client) -> None:
    routes = httpbin.url_map.bind("", "/")
    for path in {path for method in METHODS for path in examples(method)}:
        answer = client.options(path)
        assert (answer.status_code, answer.content) == (200, b""), path
        allowed = set(answer.headers["allow"].split(", "))
        assert allowed == set(routes.allowed_methods(path)), path


def test_a_method_that_no_route_of_the_path_has_is_405(client: httpx.Client) -> None:
    answer = client.post("/get", content=b"unread")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert client.get("/nowhere").status_code == 404


# What was asked.


@drives("/get")
def test_a_request_arrives_as_it_was_sent(client: httpx.Client, base: str) -> None:
    answer = client.get("/get", params={"a": "1 2", "b": "ü", "c": ["3", "4"]})
    assert answer.json()["args"] == {"a": "1 2", "b": "ü", "c": ["3", "4"]}
    assert answer.json()["url"] == f"{base}/get?a=1+2&b=ü&c=3&c=4"
    assert answer.json()["origin"] == "127.0.0.1"
    assert answer.headers["access-control-allow-origin"] == "*"


@drives("/anything", "/anything/<path:anything>", methods=METHODS)
def test_anything_tells_the_path_as_it_came(client: httpx.Client, base: str) -> None:
    for method in METHODS:
        short = client.request(method, "/anything", params={"q": "1"}).json()
        assert (short["method"], short["url"]) == (method, f"{base}/anything?q=1")
        seen = client.request(method, "/anything/a%20b/%C3%BC//c", params={"q": "a/b?c"}).json()
        assert (seen["method"], seen["args"]) == (method, {"q": "a/b?c"})
        assert seen["url"] == f"{base}/anything/a%20b/ü//c?q=a/b?c"


@drives("/post", methods=("POST",))
@drives("/put", methods=("PUT",))
@drives("/patch", methods=("PATCH",))
@drives("/delete", methods=("DELETE",))
def test_bodies_of_every_kind(client: httpx.Client, base: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        path = f"/{method.lower()}"
        form = client.request(method, path, data={"a": "1", "b": ["ü", "x y"]}).json()
        assert (form["form"], form["url"]) == ({"a": "1", "b": ["ü", "x y"]}, f"{base}{path}")
        files = {
            "picture": ("p.txt", b"a picture\n", "text/plain"),
            "other": ("p.bin", b"\xff\x00", "application/octet-stream"),
        }
        both = client.request(method, path, data={"note": "see"}, files=files).json()
        assert both["files"] == {
            "picture": "a picture\n",
            "other": "data:application/octet-stream;base64,/wA=",
        }
        assert both["form"] == {"note": "see"}
        document = {"deep": [1, {"a": None}], "ü": "é"}
        assert client.request(method, path, json=document).json()["json"] == document
        plain = client.request(method, path, content="täa", headers={"content-type": "text/plain"})
        assert (plain.json()["data"], plain.json()["form"]) == ("täa", {})
        nothing = client.request(method, path).json()
        assert (nothing["data"], nothing["form"], nothing["json"]) == ("", {}, None)


@drives("/post", methods=("POST",))
def test_a_large_upload(client: httpx.Client) -> None:
    content = bytes(range(256)) * 8 * 1024
    echoed = client.post("/post", content=content).json()["data"]
    assert base64.b64decode(echoed.partition(",")[2]) == content


@drives("/post", methods=("POST",))
def test_an_upload_without_a_length(client: httpx.Client) -> None:
    def blocks() -> Iterator[bytes]:
        for number in range(100):
            yield f"block {number:04};".encode()

    answer = client.post("/post", content=blocks())
    if answer.http_version == "HTTP/2":
        assert answer.json()["data"].encode() == b"".join(blocks())
    else:
        # httpbin refuses chunked bodies of every server that is not called gunicorn.
        assert (answer.status_code, "twinspan" in answer.text) == (501, True)


@drives("/headers", "/user-agent", "/ip")
def test_request_headers_arrive(client: httpx.Client, server: Command) -> None:
    headers = [
        ("x-tea", "Earl Grey"),
        ("x-many", "a"),
        ("X-Many", "b"),
        ("x-latin", "café".encode("latin-1")),
        ("user-agent", "tests"),
    ]
    seen = client.get("/headers", headers=headers).json()["headers"]
    assert (seen["X-Tea"], seen["X-Many"], seen["X-Latin"]) == ("Earl Grey", "a,b", "café")
    assert seen["Host"] == f"127.0.0.1:{server.port}"
    assert client.get("/user-agent", headers=headers).json() == {"user-agent": "tests"}
    assert client.get("/ip").json() == {"origin": "127.0.0.1"}


@drives("/cookies", "/cookies/set", "/cookies/set/<name>/<value>", "/cookies/delete")
def test_cookies(client: httpx.Client, base: str) -> None:
    set_both = client.get("/cookies/set", params={"a": "1", "b": "2"})
    assert set_both.status_code == 302
    assert str(httpx.URL(base).join(set_both.headers["location"])) == f"{base}/cookies"
    assert client.get("/cookies").json() == {"cookies": {"a": "1", "b": "2"}}
    client.get("/cookies/set/tea/green", follow_redirects=True)
    assert client.get("/cookies").json()["cookies"]["tea"] == "green"
    client.get("/cookies/delete", params={"a": "", "tea": ""})
    assert client.get("/cookies").json() == {"cookies": {"b": "2"}}


# Who may ask.


@drives("/basic-auth/<user>/<passwd>", "/hidden-basic-auth/<user>/<passwd>", "/bearer")
def test_authentication(client: httpx.Client) -> None:
    refused = client.get("/basic-auth/ada/kettle")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Basic realm="Fake Realm"'
    known = {"authenticated": True, "user": "ada"}
    for path, refusal in (("/basic-auth", 401), ("/hidden-basic-auth", 404)):
        assert client.get(f"{path}/ada/kettle", auth=("ada", "pot")).status_code == refusal
        assert client.get(f"{path}/ada/kettle", auth=("ada", "kettle")).json() == known
    assert client.get("/bearer").headers["www-authenticate"] == "Bearer"
    bearer = {"authorization": "Bearer tea"}
    assert client.get("/bearer", headers=bearer).json() == {"authenticated": True, "token": "tea"}


DIGEST = "/digest-auth/<qop>/<user>/<passwd>"


@drives(DIGEST, f"{DIGEST}/<algorithm>", f"{DIGEST}/<algorithm>/<stale_after>")
def test_digest_authentication(client: httpx.Client) -> None:
    known = {"authenticated": True, "user": "ada"}
    for rest in ("", "/MD5", "/SHA-256", "/SHA-512", "/SHA-256/never", "/MD5/5"):
        client.cookies.clear()
        refused = client.get(f"/digest-auth/auth/ada/kettle{rest}")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Digest ")
        answer = client.get(
            f"/digest-auth/auth/ada/kettle{rest}", auth=httpx.DigestAuth("ada", "kettle")
        )
        assert answer.json() == known, rest
    client.cookies.clear()
    wrong = httpx.DigestAuth("ada", "pot")
    assert client.get("/digest-auth/auth/ada/kettle", auth=wrong).status_code == 401


@drives(DIGEST)
def test_digest_authentication_with_the_body(client: httpx.Client, base: str) -> None:
    path = "/digest-auth/auth-int/ada/kettle"
    challenge = dict(re.findall(r'(\w+)="?([^",]+)', client.get(path).headers["www-authenticate"]))
    assert challenge["qop"] == "auth-int"

    def digest(*parts: str) -> str:
        return hashlib.md5(":".join(parts).encode(), usedforsecurity=False).hexdigest()

    uri = httpx.URL(f"{base}{path}").path
    nonce, count, own = challenge["nonce"], "00000001", "0a4f113b"
    response = digest(
        digest("ada", challenge["realm"], "kettle"),
        *(nonce, count, own, "auth-int"),
        digest("GET", uri, digest("")),
    )
    fields = {
        "username": "ada",
        "uri": uri,
        "nc": count,
        "cnonce": own,
        "response": response,
        **challenge,
    }
    credentials = "Digest " + ", ".join(f'{name}="{value}"' for name, value in fields.items())
    assert client.get(path, headers={"authorization": credentials}).json()["user"] == "ada"


# Statuses, redirects, conditions.


@drives("/status/<codes>", methods=METHODS)
@pytest.mark.parametrize(
    "status", [200, 201, 204, 205, 206, 300, 304, 400, 401, 404, 406, 500, 599]
)
def test_statuses(client: httpx.Client, server: Command, status: int) -> None:
    for method in METHODS:
        answer = client.request(method, f"/status/{status}")
        assert answer.status_code == status
        if status in (204, 304):
            assert answer.content == b""
            assert "content-length" not in answer.headers or status == 304
    assert server.returncode is None


@drives("/status/<codes>")
def test_statuses_with_a_body_or_a_place_to_go(client: httpx.Client) -> None:
    teapot = client.get("/status/418")
    assert (teapot.status_code, teapot.text.count("teapot")) == (418, 1)
    for status in (301, 302, 303, 305, 307):
        moved = client.get(f"/status/{status}")
        assert (moved.status_code, moved.headers["location"]) == (status, "/redirect/1")
    assert {client.get("/status/200,201:3").status_code for _ in range(20)} <= {200, 201}
    assert client.get("/status/tea").text == "Invalid status code"


@drives("/redirect/<int:n>", "/relative-redirect/<int:n>", "/absolute-redirect/<int:n>", "/get")
def test_redirects_stay_in_the_application(client: httpx.Client, base: str) -> None:
    for kind in ("redirect", "relative-redirect", "absolute-redirect"):
        answer = client.get(f"/{kind}/3", follow_redirects=True)
        assert (answer.status_code, len(answer.history)) == (200, 3)
        assert str(answer.url) == answer.json()["url"] == f"{base}/get"
    absolute = client.get("/redirect/3?absolute=true")
    assert absolute.headers["location"] == f"{base}/absolute-redirect/2"
    absolute = client.get("/absolute-redirect/2")
    assert absolute.headers["location"] == f"{base}/absolute-redirect/1"
    for path in ("/redirect/1", "/relative-redirect/1"):
        assert client.get(path).headers["location"] == f"{httpx.URL(base).path.rstrip('/')}/get"


@drives("/redirect-to", methods=METHODS)
def test_redirects_to_elsewhere(client: httpx.Client) -> None:
    for method in METHODS:
        elsewhere = {"url": "http://tea.example/ü?a=1", "status_code": "308"}
        moved = client.request(method, "/redirect-to", params=elsewhere)
        assert (moved.status_code, moved.content) == (308, b"")
        assert moved.headers["location"] == "http://tea.example/%C3%BC?a=1"
    target = {"url": "post", "status_code": "307"}
    answer = client.post("/redirect-to", params=target, data={"a": "1"}, follow_redirects=True)
    assert answer.json()["form"] == {"a": "1"}


@drives("/cache", "/cache/<int:value>", "/etag/<etag>")
def test_conditional_requests(client: httpx.Client) -> None:
    first = client.get("/cache")
    assert first.json()["args"] == {}
    for name, value in (
        ("if-none-match", first.headers["etag"]),
        ("if-modified-since", first.headers["last-modified"]),
    ):
        again = client.get("/cache", headers={name: value})
        assert (again.status_code, again.content) == (304, b"")
    assert client.get("/cache/60").headers["cache-control"] == "public, max-age=60"
    # Its tag comes as httpbin writes it, without quotes: a server has no say in that.
    assert client.get("/etag/tea").headers["etag"] == "tea"
    same = client.get("/etag/tea", headers={"if-none-match": '"pot", W/"tea"'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", "tea")
    assert client.get("/etag/tea", headers={"if-none-match": '"pot"'}).status_code == 200
    assert client.get("/etag/tea", headers={"if-match": '"pot"'}).status_code == 412
    assert client.get("/etag/tea", headers={"if-match": "*"}).status_code == 200


@drives("/range/<int:numbytes>")
def test_ranges(client: httpx.Client) -> None:
    whole = client.get("/range/1000")
    assert whole.content == bytes(ord("a") + number % 26 for number in range(1000))
    assert (whole.headers["etag"], whole.headers["accept-ranges"]) == ("range1000", "bytes")
    for asked, first, last in (("10-19", 10, 19), ("990-", 990, 999), ("-5", 995, 999)):
        part = client.get("/range/1000?chunk_size=3", headers={"range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, whole.content[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/1000"
    outside = client.get("/range/1000", headers={"range": "bytes=2000-"})
    assert (outside.status_code, outside.content) == (416, b"")
    assert outside.headers["content-range"] == "bytes */1000"
    assert client.get("/range/0").status_code == 404


@drives("/response-headers", methods=("GET", "POST"))
def test_response_headers_arrive_also_twice(client: httpx.Client) -> None:
    for method in ("GET", "POST"):
        given = (("x-tea", "a"), ("x-tea", "b"), ("x-pot", "café"), ("content-type", "text/tea"))
        answer = client.request(method, "/response-headers", params=given)
        assert answer.headers.get_list("x-tea") == ["a", "b"]
        assert (b"x-pot", "café".encode("latin-1")) in {
            (name.lower(), value) for name, value in answer.headers.raw
        }
        assert answer.json()["x-tea"] == ["a", "b"]
        assert answer.json()["Content-Length"] == str(len(answer.content))


# Bodies.


@drives("/gzip", "/deflate", "/brotli")
def test_encodings_pass_through(client: httpx.Client) -> None:
    for path, encoding, flag in (
        ("/gzip", "gzip", "gzipped"),
        ("/deflate", "deflate", "deflated"),
        ("/brotli", "br", "brotli"),
    ):
        answer = client.get(path)
        assert (answer.headers["content-encoding"], answer.json()[flag]) == (encoding, True)
    for path, decode in (("/gzip", gzip.decompress), ("/deflate", zlib.decompress)):
        with client.stream("GET", path) as answer:
            raw = b"".join(answer.iter_raw())
        assert answer.headers["content-length"] == str(len(raw))
        assert json.loads(decode(raw))["method"] == "GET"


@drives("/stream/<int:n>")
def test_a_stream_of_lines(client: httpx.Client) -> None:
    with client.stream("GET", "/stream/50", params={"a": "1"}) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert [line["id"] for line in lines] == list(range(50))
    assert {line["args"]["a"] for line in lines} == {"1"}
    assert "content-length" not in answer.headers


@drives("/bytes/<int:n>", "/stream-bytes/<int:n>")
@pytest.mark.parametrize("size", [0, 1, 1024, 100 * 1024])
def test_bytes(client: httpx.Client, size: int) -> None:
    first = client.get(f"/bytes/{size}", params={"seed": 1})
    assert (len(first.content), first.headers["content-length"]) == (size, str(size))
    streamed = client.get(f"/stream-bytes/{size}", params={"seed": 1, "chunk_size": 1000})
    assert streamed.content == first.content


@drives("/drip")
def test_a_body_comes_in_drips_as_it_is_made(client: httpx.Client) -> None:
    query = {"numbytes": "3", "duration": "0.3", "delay": "0.1", "code": "203"}
    with client.stream("GET", "/drip", params=query) as answer:
        times = [(piece, time.monotonic()) for piece in answer.iter_raw()]
    assert (answer.status_code, answer.headers["content-length"]) == (203, "3")
    assert [piece for piece, _ in times] == [b"*"] * 3
    # It sleeps a tenth of a second after each.
    assert all(later - earlier > 0.05 for (_, earlier), (_, later) in pairwise(times))
    assert client.get("/drip", params={"numbytes": "0"}).status_code == 400


@drives("/delay/<delay>", methods=METHODS)
def test_a_delay(client: httpx.Client) -> None:
    for method in METHODS:
        began = time.monotonic()
        answer = client.request(
            method, "/delay/0.02", content=b"late" if method != "TRACE" else b""
        )
        assert time.monotonic() - began >= 0.02
        assert answer.json()["data"] == ("late" if method != "TRACE" else "")


@drives(
    "/base64/<value>", "/uuid", "/encoding/utf8", "/links/<int:n>", "/links/<int:n>/<int:offset>"
)
def test_what_is_made_on_request(client: httpx.Client, base: str) -> None:
    assert client.get("/base64/dMOkYQ==").text == "täa"
    made = [uuid.UUID(client.get("/uuid").json()["uuid"]) for _ in range(2)]
    assert made[0] != made[1]
    assert "∮ E⋅da = Q" in client.get("/encoding/utf8").text
    page = client.get("/links/5", follow_redirects=True)
    assert str(page.url) == f"{base}/links/5/0"
    links = re.findall("href='([^']+)'", page.text)
    assert links == [f"{httpx.URL(base).path.rstrip('/')}/links/5/{i}" for i in range(1, 5)]
    last = client.get(str(httpx.URL(base).join(links[-1])))
    assert (last.status_code, last.text.count("<a ")) == (200, 4)


@drives("/html", "/json", "/xml", "/robots.txt", "/deny", "/forms/post", "/legacy")
def test_documents(client: httpx.Client, base: str) -> None:
    html = client.get("/html")
    assert html.headers["content-type"] == "text/html; charset=utf-8"
    assert "Herman Melville - Moby-Dick" in html.text
    assert client.get("/json").json()["slideshow"]["author"] == "Yours Truly"
    document = client.get("/xml")
    assert document.headers["content-type"] == "application/xml"
    root = ET.fromstring(document.content)
    assert (root.tag, root.get("author")) == ("slideshow", "Yours Truly")
    assert client.get("/robots.txt").text == "User-agent: *\nDisallow: /deny\n"
    assert "YOU SHOULDN'T BE HERE" in client.get("/deny").text
    target = f'<form method="post" action="{httpx.URL(base).path.rstrip("/")}/post">'
    assert target in client.get("/forms/post").text
    assert "<title>httpbin" in client.get("/legacy").text


SIGNATURES = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff",
    "webp": b"RIFF",
    "svg+xml": b"<svg ",
}


@drives("/image", "/image/png", "/image/jpeg", "/image/webp", "/image/svg")
def test_pictures(client: httpx.Client) -> None:
    for kind, signature in SIGNATURES.items():
        own = client.get(f"/image/{kind.removesuffix('+xml')}")
        chosen = client.get("/image", headers={"accept": f"image/{kind}"})
        assert own.headers["content-type"] == chosen.headers["content-type"] == f"image/{kind}"
        assert own.content == chosen.content
        assert own.content.startswith(signature)
        assert own.headers["content-length"] == str(len(own.content))
    assert client.get("/image", headers={"accept": "text/tea"}).status_code == 406


# The pages about httpbin itself.


@drives("/", "/spec.json", "/apidocs/index.html", "/oauth2-redirect.html")
def test_the_documentation_knows_every_route_that_is_documented(
    client: httpx.Client, base: str
) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "<title>httpbin.org</title>" in page.text
    specification = client.get("/spec.json").json()
    assert len(specification["paths"]) > 50
    assert set(specification["paths"]["/anything"]) == {method.lower() for method in METHODS}
    old = client.get("/apidocs/index.html")
    assert str(httpx.URL(base).join(old.headers["location"])) == f"{base}/"
    assert "oauth2" in client.get("/oauth2-redirect.html").text


@drives("/static/<path:filename>", "/flasgger_static/<path:filename>")
def test_files(client: httpx.Client) -> None:
    icon = client.get("/static/favicon.ico")
    assert icon.content.startswith(b"\x00\x00\x01\x00")
    script = client.get("/flasgger_static/swagger-ui-bundle.js")
    assert script.headers["content-type"].startswith(("text/javascript", "application/javascript"))
    assert len(script.content) == int(script.headers["content-length"]) > 500_000
    again = client.get(
        "/flasgger_static/swagger-ui-bundle.js",
        headers={"if-none-match": script.headers["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")
    part = client.get(
        "/flasgger_static/swagger-ui-bundle.js", headers={"range": "bytes=300000-399999"}
    )
    assert (part.status_code, part.content) == (206, script.content[300_000:400_000])
    assert client.get("/static/../core.py").status_code == 404
