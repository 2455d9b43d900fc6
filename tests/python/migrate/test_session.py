"""Flask's session cookie, written and read on both sides: by Flask and by the middleware."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from uuid import UUID

import flask
import pytest
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SecureCookieSessionInterface
from hypothesis import given
from hypothesis import strategies as some
from itsdangerous import URLSafeTimedSerializer
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from twinspan.migrate import FlaskSession, FlaskSessionMiddleware, _tagged_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

KEY = "the key of today"
OLD = "the key of yesterday"


def legacy(**config: Any) -> flask.Flask:
    app = flask.Flask(__name__)
    app.config.update(SECRET_KEY=KEY, **config)

    @app.route("/", methods=["GET"])
    def show() -> dict[str, Any]:
        return {"session": {key: repr(value) for key, value in flask.session.items()}}

    @app.route("/permanent/<int:value>")
    def permanent(value: int) -> str:
        flask.session.permanent = bool(value)
        return ""

    @app.route("/clear")
    def clear() -> str:
        flask.session.clear()
        return ""

    @app.route("/untouched")
    def untouched() -> str:
        return ""

    return app


def written_by_flask(values: dict[str, Any], key: str = KEY) -> str:
    app = flask.Flask(__name__)
    app.secret_key = key
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    return str(serializer.dumps(values))


def read_by_flask(cookie: str, key: str = KEY) -> Any:
    app = flask.Flask(__name__)
    app.secret_key = key
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    return serializer.loads(cookie)


@dataclass(frozen=True)
class Answer:
    """What an application sent."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def session(self) -> str:
        """The value of the cookie that was set."""
        [cookie] = self.all("set-cookie")
        return SimpleCookie(cookie)["session"].value


@dataclass(frozen=True)
class Client:
    """Calls an ASGI application; it keeps no cookies."""

    app: Any

    def get(self, target: str = "/", cookie: str | None = None) -> Answer:
        sent = self._run("http", target, cookie, [{"type": "http.request"}])
        head = sent[0]
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(head["status"], decoded(head["headers"]), body)

    def websocket(self, cookie: str | None = None) -> tuple[list[tuple[str, str]], Any]:
        """The header fields with which it was accepted, and the first message."""
        accept, first, *_ = self._run("websocket", "/", cookie, [{"type": "websocket.connect"}])
        return decoded(accept.get("headers", [])), json.loads(first["text"])

    def _run(
        self, kind: str, target: str, cookie: str | None, messages: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        path, _, query = target.partition("?")
        scope = {
            "type": kind,
            "method": "GET",
            "path": path,
            "query_string": query.encode(),
            "headers": [] if cookie is None else [(b"cookie", cookie.encode())],
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop(0)
            return await asyncio.get_running_loop().create_future()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        return sent


def decoded(headers: Any) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in headers]


def moved(endpoint: Callable[[Request], Response], **options: Any) -> Client:
    """A client of an application with one page."""

    async def page(request: Request) -> Response:
        return endpoint(request)

    settings = {"secret_key": KEY, **options}
    app = Starlette(
        routes=[Route("/", page)], middleware=[Middleware(FlaskSessionMiddleware, **settings)]
    )
    return Client(app)


def show(request: Request) -> Response:
    return JSONResponse({key: repr(value) for key, value in request.session.items()})


def asked(client: Client, cookie: str | None = None) -> Answer:
    answer = client.get("/", None if cookie is None else f"session={cookie}")
    assert answer.status == 200, answer.body
    return answer


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "twinspan.migrate")
    return lambda: [record.message for record in caplog.records]


# --- The format ---

EXACT = (
    some.none()
    | some.booleans()
    | some.integers(-(2**53), 2**53)
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text()
    | some.binary()
    | some.uuids()
    | some.text().map(Markup)
    # Kept to the second.
    | some.datetimes(
        min_value=datetime(1000, 1, 1),  # noqa: DTZ001
        timezones=some.just(timezone.utc),
    ).map(lambda value: value.replace(microsecond=0))
)
KEYS = some.text() | some.sampled_from([" t", " b", " di", " d", " u", " m", " t__", "_permanent"])
VALUES = some.recursive(
    EXACT,
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.lists(inner, max_size=3).map(tuple)
        | some.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)
SESSIONS = some.dictionaries(KEYS, VALUES, max_size=4)


def alike(one: Any, other: Any) -> bool:
    """Equal, types included: a tuple is no list, markup no text."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return one == other


@given(SESSIONS)
def test_flask_reads_what_is_written(values: dict[str, Any]) -> None:
    client = moved(write(values))
    if values:
        assert alike(read_by_flask(asked(client).session), values)


@given(SESSIONS)
def test_what_flask_writes_is_read(values: dict[str, Any]) -> None:
    seen: list[dict[str, Any]] = []

    def read(request: Request) -> Response:
        seen.append(dict(request.session))
        return PlainTextResponse()

    asked(moved(read), written_by_flask(values))
    assert alike(seen[0], values)


@given(VALUES)
def test_the_json_is_flask_s_own(value: Any) -> None:
    assert _tagged_json.dumps(value) == TaggedJSONSerializer().dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
        datetime(2026, 1, 2, tzinfo=timezone.utc).date(),
        __import__("decimal").Decimal("1.50"),
        {1: 2, None: 3},
        FlaskSession,
    ],
    ids=repr,
)
def test_other_values_become_what_flask_makes_of_them(value: Any) -> None:
    def outcome(dumps: Callable[[Any], str]) -> str | type[BaseException]:
        try:
            return dumps({"value": value})
        except TypeError:
            return TypeError

    assert outcome(_tagged_json.dumps) == outcome(TaggedJSONSerializer().dumps)


def test_markup_is_text_where_markupsafe_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "markupsafe", None)
    assert type(_tagged_json.loads('{" m":"<b>"}')) is str


def write(values: dict[str, Any]) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        request.session.update(values)
        return PlainTextResponse()

    return endpoint


# --- Keys and age ---


def test_a_cookie_of_an_older_key_is_read_and_the_newest_key_signs() -> None:
    client = moved(show, fallbacks=["older still", OLD])
    assert asked(client, written_by_flask({"user": "ada"}, OLD)).json() == {"user": "'ada'"}
    client = moved(write({"user": "bob"}), fallbacks=[OLD])
    answer = asked(client, written_by_flask({"user": "ada"}, OLD))
    assert read_by_flask(answer.session, KEY) == {"user": "bob"}


def test_keys_may_be_bytes() -> None:
    client = moved(show, secret_key=KEY.encode(), fallbacks=[OLD.encode()])
    for key in (KEY, OLD):
        assert asked(client, written_by_flask({"user": "ada"}, key)).json() == {"user": "'ada'"}


@pytest.mark.parametrize("place", [0, 10, -1])
def test_a_changed_cookie_is_not_believed(place: int) -> None:
    cookie = written_by_flask({"user": "ada", "id": 7})
    changed = list(cookie)
    changed[place] = "A" if changed[place] != "A" else "B"
    if place == -1:
        # The last character of a signature has bits that do not count.
        changed[-2] = "A" if changed[-2] != "A" else "B"
    assert asked(moved(show), "".join(changed)).json() == {}


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", ".", '"', "eyJ9.", "%00", "é"])
def test_nonsense_is_no_session(cookie: str) -> None:
    assert asked(moved(show), cookie).json() == {}


@pytest.mark.parametrize("payload", ['["a list"]', '{" u":"no uuid"}', '{" d":"no date"}'])
def test_a_signed_cookie_that_is_no_session_is_none(payload: str) -> None:
    class Raw:
        @staticmethod
        def dumps(value: str) -> str:
            return value

        @staticmethod
        def loads(text: str) -> str:
            return text

    options: dict[str, Any] = {"key_derivation": "hmac"}
    signer = URLSafeTimedSerializer(
        KEY, salt="cookie-session", serializer=Raw, signer_kwargs=options
    )
    assert asked(moved(show), str(signer.dumps(payload))).json() == {}


def test_a_cookie_older_than_the_lifetime_is_not_read_and_not_warned_of(
    warnings: Callable[[], list[str]],
) -> None:
    cookie = written_by_flask({"user": "ada"})
    assert asked(moved(show, lifetime=timedelta(seconds=-1)), cookie).json() == {}
    assert asked(moved(show, lifetime=timedelta(seconds=60)), cookie).json() == {"user": "'ada'"}
    assert warnings() == []


# --- When the cookie is sent ---

SETTINGS = {
    "domain": ("SESSION_COOKIE_DOMAIN", "shop.example"),
    "path": ("SESSION_COOKIE_PATH", "/shop"),
    "secure": ("SESSION_COOKIE_SECURE", True),
    "httponly": ("SESSION_COOKIE_HTTPONLY", False),
    "samesite": ("SESSION_COOKIE_SAMESITE", "Lax"),
    "partitioned": ("SESSION_COOKIE_PARTITIONED", True),
    "cookie_name": ("SESSION_COOKIE_NAME", "login"),
    "lifetime": ("PERMANENT_SESSION_LIFETIME", timedelta(hours=1)),
    "refresh_each_request": ("SESSION_REFRESH_EACH_REQUEST", False),
}


def attributes(header: str) -> dict[str, Any]:
    """A `Set-Cookie` field without what depends on the second."""
    first, *rest = header.split("; ")
    name, _, value = first.partition("=")
    found: dict[str, Any] = {"name": name, "value": read_by_flask(value) if value else ""}
    for part in rest:
        key, _, text = part.partition("=")
        if key == "Expires":
            end = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=timezone.utc)
            # A quarter of an hour is more than a test takes, and less than any lifetime here.
            text = str(round((end - datetime.now(timezone.utc)) / timedelta(minutes=15)))
            text = "long ago" if text.startswith("-") else text
        found[key] = text
    return found


def as_flask(path: str, options: dict[str, Any], cookie: str | None) -> Any:
    """What Flask's application and the middleware answer to the same."""
    config = {SETTINGS[name][0]: value for name, value in options.items()}
    name = options.get("cookie_name", "session")
    headers = {} if cookie is None else {"cookie": f"{name}={cookie}"}
    by_flask = legacy(**config).test_client(use_cookies=False).get(path, headers=headers)

    def endpoint(request: Request) -> Response:
        session: Any = request.session
        if path == "/":
            list(session.items())
        elif path == "/clear":
            session.clear()
        else:
            session.permanent = path.endswith("1")
        return PlainTextResponse()

    def untouched(_: Request) -> Response:
        return PlainTextResponse()

    client = moved(untouched if path == "/untouched" else endpoint, **options)
    by_us = client.get("/", headers.get("cookie"))
    told = []
    for fields in (by_flask.headers.items(), by_us.fields):
        of = {"vary": list[str](), "set-cookie": list[str]()}
        for key, value in fields:
            of.get(key.lower(), []).append(value)
        told.append((of["vary"], [attributes(value) for value in of["set-cookie"]]))
    return told


@pytest.mark.parametrize("path", ["/", "/untouched", "/permanent/1", "/permanent/0", "/clear"])
@pytest.mark.parametrize(
    "values",
    [None, {}, {"user": "ada"}, {"user": "ada", "_permanent": True}],
    ids=["none", "empty", "session", "permanent"],
)
def test_the_cookie_and_vary_are_sent_when_flask_sends_them(
    path: str, values: dict[str, Any] | None
) -> None:
    by_flask, by_us = as_flask(path, {}, None if values is None else written_by_flask(values))
    assert by_us == by_flask


@pytest.mark.parametrize("path", ["/", "/permanent/1", "/clear"])
@pytest.mark.parametrize("option", SETTINGS)
def test_the_cookie_is_what_flask_s_settings_make_of_it(path: str, option: str) -> None:
    options = {option: SETTINGS[option][1]}
    cookie = written_by_flask({"user": "ada", "_permanent": True})
    by_flask, by_us = as_flask(path, options, cookie)
    assert by_us == by_flask


def test_what_changes_inside_of_a_value_is_written_when_it_is_said() -> None:
    def add(request: Request) -> Response:
        session: Any = request.session
        session["cart"].append(7)
        session.modified = request.url.query == "said"
        return PlainTextResponse()

    client = moved(add)
    cookie = f"session={written_by_flask({'cart': [1]})}"
    assert client.get("/", cookie).all("set-cookie") == []
    assert read_by_flask(client.get("/?said", cookie).session) == {"cart": [1, 7]}


def test_other_cookies_and_what_varies_stay() -> None:
    def endpoint(request: Request) -> Response:
        request.session["user"] = "ada"
        response = PlainTextResponse(headers={"vary": "Accept, cookie"})
        response.set_cookie("theme", "dark")
        return response

    response = asked(moved(endpoint))
    cookies = response.all("set-cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == ["theme", "session"]
    assert response.all("vary") == ["Accept, cookie"]


def test_a_session_that_says_too_late_that_it_changed_is_warned_of(
    warnings: Callable[[], list[str]],
) -> None:
    def endpoint(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            request.session["user"] = "ada"
            yield b""

        return StreamingResponse(body())

    assert asked(moved(endpoint)).all("set-cookie") == []
    [warning] = warnings()
    assert "the change is lost" in warning


# --- Whose cookie it is ---


def test_a_foreign_cookie_is_left_alone_until_a_session_is_written(
    warnings: Callable[[], list[str]],
) -> None:
    foreign = written_by_flask({"user": "eve"}, "the key of somebody else")
    client = moved(show)
    for _ in range(3):
        assert asked(client, foreign).all("set-cookie") == []
    [warning] = warnings()
    assert "`session` is not signed" in warning
    written = asked(moved(write({"user": "ada"})), foreign)
    assert read_by_flask(written.session) == {"user": "ada"}


def test_of_several_cookies_of_the_name_the_one_that_is_ours_is_read(
    warnings: Callable[[], list[str]],
) -> None:
    foreign = written_by_flask({"user": "eve"}, "the key of somebody else")
    own = written_by_flask({"user": "ada"})
    for pair in (f"{foreign}; session={own}", f"{own}; session={foreign}"):
        assert asked(moved(show), pair).json() == {"user": "'ada'"}
    assert warnings() == []


@pytest.mark.parametrize("outside", [True, False])
def test_starlette_s_own_sessions_in_the_same_place_are_warned_of_and_end_no_login(
    warnings: Callable[[], list[str]], outside: bool
) -> None:
    async def page(request: Request) -> Response:
        return show(request)

    both = [
        Middleware(SessionMiddleware, secret_key="another"),
        Middleware(FlaskSessionMiddleware, secret_key=KEY),
    ]
    app = Starlette(routes=[Route("/", page)], middleware=both if outside else both[::-1])
    client = Client(app)
    for _ in range(2):
        assert asked(client, written_by_flask({"user": "ada"})).all("set-cookie") == []
    [warning] = warnings()
    assert "remove Starlette's SessionMiddleware" in warning


def test_both_kinds_of_sessions_live_beside_each_other_under_keys_of_their_own() -> None:
    async def page(request: Request) -> Response:
        request.session["seen"] = True
        return JSONResponse(dict(request.scope["flask_session"]))

    app = Starlette(
        routes=[Route("/", page)],
        middleware=[
            Middleware(SessionMiddleware, secret_key="another", session_cookie="new"),
            Middleware(FlaskSessionMiddleware, secret_key=KEY, scope_key="flask_session"),
        ],
    )
    response = asked(Client(app), written_by_flask({"user": "ada"}))
    assert response.json() == {"user": "ada"}
    [cookie] = response.all("set-cookie")
    assert cookie.startswith("new=")


# --- WebSockets ---


def websocket(act: Callable[[Any], None], *, late: bool = False) -> Client:
    async def endpoint(connection: WebSocket) -> None:
        if late:
            await connection.accept()
        act(connection.session)
        if not late:
            await connection.accept()
        await connection.send_json(dict(connection.session))
        await connection.close()

    app = Starlette(
        routes=[WebSocketRoute("/", endpoint)],
        middleware=[Middleware(FlaskSessionMiddleware, secret_key=KEY)],
    )
    return Client(app)


def test_a_websocket_reads_the_session_and_does_not_renew_it() -> None:
    cookie = written_by_flask({"user": "ada", "_permanent": True})
    fields, seen = websocket(lambda _: None).websocket(f"session={cookie}")
    assert (fields, seen) == ([], {"user": "ada", "_permanent": True})


def test_a_session_that_changes_before_the_websocket_is_accepted_is_written() -> None:
    [(name, value)], _ = websocket(lambda session: session.update(user="ada")).websocket()
    assert name == "set-cookie"
    assert attributes(value)["value"] == {"user": "ada"}


def test_a_session_that_changes_after_that_is_warned_of(
    warnings: Callable[[], list[str]],
) -> None:
    fields, seen = websocket(lambda session: session.update(user="ada"), late=True).websocket()
    assert (fields, seen) == ([], {"user": "ada"})
    [warning] = warnings()
    assert "the change is lost" in warning


# --- Errors ---


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"secret_key": ""}, "`secret_key` is empty"),
        ({"fallbacks": "one key"}, "`fallbacks` is a list"),
        ({"samesite": "no"}, "it is Lax, Strict or None"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], problem: str) -> None:
    async def app(*_: object) -> None: ...

    with pytest.raises((ValueError, TypeError), match=problem):
        FlaskSessionMiddleware(app, **{"secret_key": KEY, **options})


def test_without_itsdangerous_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "itsdangerous", None)

    async def app(*_: object) -> None: ...

    with pytest.raises(ImportError, match="pip install itsdangerous"):
        FlaskSessionMiddleware(app, secret_key=KEY)


def test_a_session_is_a_mapping() -> None:
    session = FlaskSession({"user": "ada"})
    assert (session.accessed, session.modified, session.permanent) == (False, False, False)
    session = FlaskSession({"user": "ada"})
    with pytest.raises(KeyError):
        del session["missing"]
    assert session.pop("missing", None) is None
    assert (len(session), session.modified) == (1, False)
    assert (dict(session), "ada" in repr(session)) == ({"user": "ada"}, False)
    assert UUID(int=0) not in session
    del session["user"]
    assert session.modified
