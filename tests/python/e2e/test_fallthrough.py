"""Fallthrough between real applications: what counts as no answer, and bodies sent again."""

from __future__ import annotations

import hashlib
import textwrap
from typing import TYPE_CHECKING

import httpx
import pytest
from support import Command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLASK = """
import hashlib
from flask import Flask, request

app = Flask(__name__)

@app.route("/hash", methods=["GET", "POST", "PUT"])
def digest():
    return "flask " + hashlib.sha256(request.get_data()).hexdigest()

@app.get("/flask")
def only():
    return "flask"
"""

FASTAPI = """
from fastapi import FastAPI, Request, Response

app = FastAPI(openapi_url=None)

@app.post("/hash")
@app.put("/hash")
async def digest(request: Request):
    # Reads everything first, as an application does whose business has no such thing.
    await request.body()
    return Response("no such thing", 404, headers={"set-cookie": "gone=1"})

@app.get("/new")
async def new():
    return Response("fastapi")
"""

WSGI_FIRST = """
def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("404 Not Found", [("Set-Cookie", "gone=1")])
    return [b"no such thing"]
"""

CONFIGURATION = """
apps.first = {{ app = "{first}:app" }}
apps.legacy = {{ app = "legacy:app" }}

[[routes]]
app = "first"
fallthrough = {{ status = [404, 405], method = ["GET", "POST"], memory = 1000, file = 1000000 }}

[[routes]]
app = "legacy"
"""


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    directory: Path = tmp_path_factory.mktemp("fallthrough")
    for name, text in (("legacy", FLASK), ("asgi", FASTAPI), ("wsgi", WSGI_FIRST)):
        (directory / f"{name}.py").write_text(textwrap.dedent(text))
    (directory / "twinspan.toml").write_text(CONFIGURATION.format(first=request.param))
    server = Command(("--bind", "127.0.0.1:0"), cwd=directory)
    try:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
            yield client
    finally:
        server.kill()


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("size", [0, 999, 1001, 70_000, 1_000_000])
def test_a_body_that_was_read_is_sent_again(client: httpx.Client, size: int, framing: str) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    pieces = (body[at : at + 7000] for at in range(0, size, 7000))
    answer = client.post("/hash", content=body if framing == "length" else pieces)
    assert answer.text == f"flask {hashlib.sha256(body).hexdigest()}"
    assert "set-cookie" not in answer.headers


def test_a_body_that_is_too_long_stays_with_the_first_application(client: httpx.Client) -> None:
    answer = client.post("/hash", content=b"x" * 1_100_000)
    assert (answer.status_code, answer.text) == (404, "no such thing")
    # And the connection goes on.
    assert client.get("/flask").text == "flask"


def test_a_method_that_is_not_named_stays_with_the_first_application(client: httpx.Client) -> None:
    assert client.put("/hash", content=b"x" * 5000).status_code == 404
