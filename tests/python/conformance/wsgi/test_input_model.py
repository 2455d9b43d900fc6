"""`wsgi.input` returns what a file with the same content returns, whatever it is asked.

PEP 3333, "Input and Error Streams": "The semantics of each method are as documented in the Python
Library Reference". `io.BytesIO` is the reference. Bodies come whole or in pieces of any size, with
a length or without.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pytest
from conformance.clients import HTTP_1_0, PROTOCOLS, UNTOLD, connect
from conformance.wsgi.apps import TEXT, Bare
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twinspan.testing import Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from conformance.wsgi.apps import Environ, StartResponse

Call = tuple[str, "int | None"]

# Sizes around those of the pieces and of the content; `None` is what a file takes for "all".
SIZES = st.one_of(st.none(), st.integers(-1, 12), st.just(4096), st.just(2**40))

CALLS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["read", "readline", "readlines"]), SIZES),
        st.tuples(st.sampled_from(["next", "read()", "readline()", "readlines()"]), st.none()),
    ),
    max_size=12,
)

# Lines of every length and all kinds of line end; some are longer than one read of a socket.
TEXTS = st.lists(
    st.sampled_from([b"\n", b"\r\n", b"\r", b"a", b"bc", b"\0\xff", b"long" * 5_000]), max_size=20
).map(b"".join)


def results(stream: Any, calls: Iterable[Call]) -> Iterator[list[str]]:
    """What each call returns, and at last what is left."""
    for name, size in [*calls, ("read", None)]:
        if name == "next":
            got = [next(iter(stream), b"")]
        elif name.endswith("()"):
            got = getattr(stream, name.removesuffix("()"))()
        else:
            got = getattr(stream, name)(size)
        lines: list[bytes] = got if isinstance(got, list) else [got]
        yield [line.decode("latin-1") for line in lines]


def run_calls(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Does to its input what the query says, and answers what came of it."""
    calls = json.loads(unquote(environ["QUERY_STRING"]))
    answer = json.dumps(list(results(environ["wsgi.input"], calls))).encode()
    start_response("200 OK", [TEXT])
    return [answer]


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    """The body in pieces of these sizes, and what is left in a last one."""
    pieces: list[bytes] = []
    for cut in cuts:
        pieces.append(body[:cut])
        body = body[cut:]
    return [piece for piece in (*pieces, body) if piece]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    app = Bare(run_calls)
    with Server(app.app, mounts={"/mounted": app.app}, threads=2) as server:
        yield server


FRAMINGS = [
    (protocol, told)
    for protocol in PROTOCOLS
    for told in (True, False)
    # HTTP/1.0 has no way to send a body without its length.
    if told or protocol != HTTP_1_0
]


@pytest.mark.parametrize(
    ("protocol", "is_length_told"),
    FRAMINGS,
    ids=[f"{protocol}-{'length' if told else 'no-length'}" for protocol, told in FRAMINGS],
)
@pytest.mark.parametrize("mount", ["", "/mounted"], ids=["root", "mounted"])
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=TEXTS, cuts=st.lists(st.integers(1, 9000), max_size=6), calls=CALLS)
def test_the_input_is_a_file(
    server: Server,
    protocol: str,
    is_length_told: bool,
    mount: str,
    body: bytes,
    cuts: list[int],
    calls: list[Call],
) -> None:
    connection = connect(protocol, server.address)
    try:
        target = f"{mount}/?{quote(json.dumps(calls))}"
        length = len(body) if is_length_told else UNTOLD
        exchange = connection.start("POST", target, length=length)
        for piece in split(body, cuts):
            exchange.send(piece)
        exchange.end()
        answer = exchange.answer()
    finally:
        connection.close()
    assert answer.status == 200
    assert json.loads(answer.body) == list(results(io.BytesIO(body), calls))
