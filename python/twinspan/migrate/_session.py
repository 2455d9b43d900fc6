"""Flask's session for ASGI applications.

A login must not end where a route has moved. Flask keeps its session in a signed cookie, so whoever
has the key can read it and write it (Flask 3.1, ``SecureCookieSessionInterface``); when a cookie is
sent, renewed and deleted follows Flask too. Sessions on the server (Flask-Session) are another
matter: there the cookie is only a name.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from . import _tagged_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from itsdangerous import URLSafeTimedSerializer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("twinspan.migrate")


class FlaskSession(MutableMapping[str, Any]):
    """What the session holds: ``request.session`` in Starlette and FastAPI.

    As in Flask, a change inside of a value (``session["cart"].append(7)``) is not seen: say
    ``session.modified = True``.
    """

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self._values = values or {}
        self.modified = False
        """It is written with the response."""
        self.accessed = False
        """The response depends on it."""

    @property
    def permanent(self) -> bool:
        """The cookie outlives the browser, for as long as the sessions of the application do."""
        return bool(self.get("_permanent", False))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self["_permanent"] = bool(value)

    def __getitem__(self, key: str) -> Any:
        self.accessed = True
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.accessed = self.modified = True
        self._values[key] = value

    def __delitem__(self, key: str) -> None:
        self.accessed = True
        del self._values[key]
        self.modified = True

    def __iter__(self) -> Iterator[str]:
        self.accessed = True
        return iter(self._values)

    def __len__(self) -> int:
        self.accessed = True
        return len(self._values)

    def clear(self) -> None:
        """Forgets everything; the cookie is deleted, also one that could not be read."""
        self.accessed = self.modified = True
        self._values.clear()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {sorted(self._values)}>"


class FlaskSessionMiddleware:
    """Reads and writes Flask's session cookie around an ASGI application.

    The session is ``scope[scope_key]``, which is ``request.session`` and ``websocket.session`` in
    Starlette and FastAPI. The options are Flask's settings, with Flask's defaults:

    - ``secret_key``: ``SECRET_KEY``; ``fallbacks``: ``SECRET_KEY_FALLBACKS``, which only read.
    - ``cookie_name``, ``domain``, ``path``, ``secure``, ``httponly``, ``samesite``,
      ``partitioned``: ``SESSION_COOKIE_…``.
    - ``lifetime``: ``PERMANENT_SESSION_LIFETIME``; no older cookie is read.
    - ``refresh_each_request``: ``SESSION_REFRESH_EACH_REQUEST``.

    Needs itsdangerous, which comes with Flask.
    """

    def __init__(
        self,
        app: ASGIApplication,
        *,
        secret_key: str | bytes,
        fallbacks: Sequence[str | bytes] = (),
        cookie_name: str = "session",
        domain: str | None = None,
        path: str = "/",
        secure: bool = False,
        httponly: bool = True,
        samesite: Literal["Lax", "Strict", "None"] | None = None,
        partitioned: bool = False,
        lifetime: timedelta = timedelta(days=31),
        refresh_each_request: bool = True,
        scope_key: str = "session",
    ) -> None:
        self.app = app
        self._serializer = _serializer(secret_key, fallbacks)
        self._name = cookie_name
        self._lifetime = lifetime
        self._refresh_each_request = refresh_each_request
        self._key = scope_key
        self._attributes = _attributes(
            domain=domain,
            path=path,
            # What is partitioned must be secure.
            secure=secure or partitioned,
            httponly=httponly,
            samesite=samesite,
            partitioned=partitioned,
        )
        self._way_out = (
            "remove Starlette's SessionMiddleware, or give this one a `scope_key` of its own and "
            f"the other a `session_cookie` that is not `{cookie_name}`"
        )
        self._warned: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        if self._key in scope:
            self._warn(
                "there is a session already, of a middleware around this one, and Flask's is not "
                f"used: {self._way_out}"
            )
            return await self.app(scope, receive, send)
        session = FlaskSession(self._read(scope))
        scope[self._key] = session
        begun = False

        async def send_with_session(message: Message) -> None:
            nonlocal begun
            if message["type"] in _HEADS:
                if scope.get(self._key) is not session:
                    self._warn(
                        "a middleware inside of this one has put a session of its own in the "
                        f"place of Flask's: {self._way_out}"
                    )
                headers = self._headers(session, message["type"])
                if headers:
                    message = {**message, "headers": _joined(message.get("headers", ()), headers)}
                begun, session.modified = True, False
            await send(message)

        await self.app(scope, receive, send_with_session)
        if begun and session.modified:
            logger.warning(
                "a session was changed after its cookie could be sent, because the response had "
                "begun or the WebSocket was accepted: the change is lost"
            )
        return None

    def _read(self, scope: Scope) -> dict[str, Any] | None:
        """What the first cookie holds that is ours; nothing where it is too old."""
        from itsdangerous import BadData, SignatureExpired  # noqa: PLC0415

        cookies = list(_cookies(scope, self._name))
        for cookie in cookies:
            try:
                values = self._serializer.loads(cookie, max_age=int(self._lifetime.total_seconds()))
            except SignatureExpired:
                return None
            except BadData:
                continue
            if isinstance(values, dict):
                return cast("dict[str, Any]", values)
        if cookies:
            self._warn(
                f"a cookie `{self._name}` is not signed with the key of these sessions, and is "
                "left alone until a session is written: another SECRET_KEY, a forged cookie, "
                "sessions on the server (Flask-Session), or another application or middleware with "
                "a cookie of that name"
            )
        return None

    def _headers(self, session: FlaskSession, head: str) -> list[tuple[bytes, bytes]]:
        """What a message that begins a response says of the session."""
        accessed, modified = session.accessed, session.modified
        headers: list[tuple[bytes, bytes]] = []
        if not session:
            if modified:
                headers.append(self._set_cookie("", _LONG_AGO))
        else:
            permanent = session.permanent
            # Flask knows no WebSockets: where one is accepted, only what must be written is.
            renews = self._refresh_each_request and head == "http.response.start"
            if modified or (renews and permanent):
                expires = ""
                if permanent:
                    end = datetime.now(timezone.utc) + self._lifetime
                    expires = f"; Expires={format_datetime(end, usegmt=True)}"
                value = self._serializer.dumps(dict(session))
                headers.append(self._set_cookie(value, expires))
        if (headers or accessed) and head != "websocket.accept":
            headers.append((b"vary", b"Cookie"))
        return headers

    def _set_cookie(self, value: str, expires: str) -> tuple[bytes, bytes]:
        return (b"set-cookie", f"{self._name}={value}{expires}{self._attributes}".encode("latin-1"))

    def _warn(self, problem: str) -> None:
        """Says what is wrong with the set-up, once."""
        if problem not in self._warned:
            self._warned.add(problem)
            logger.warning(problem)


_LONG_AGO = "; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0"

_HEADS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))


def _serializer(
    secret_key: str | bytes, fallbacks: Sequence[str | bytes]
) -> URLSafeTimedSerializer:
    try:
        from itsdangerous import URLSafeTimedSerializer  # noqa: PLC0415
    except ImportError as error:
        problem = "Flask's sessions are signed with itsdangerous: `pip install itsdangerous`"
        raise ImportError(problem) from error
    if not secret_key:
        raise ValueError("`secret_key` is empty: it is the SECRET_KEY of the Flask application")
    if isinstance(fallbacks, (str, bytes)):
        raise TypeError("`fallbacks` is a list of keys: write `fallbacks=[key]`")
    keys = [*fallbacks, secret_key]  # the last one signs
    return URLSafeTimedSerializer(
        cast("list[str]", keys),
        salt="cookie-session",
        serializer=_tagged_json,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha1},
    )


def _attributes(
    *,
    domain: str | None,
    path: str,
    secure: bool,
    httponly: bool,
    samesite: str | None,
    partitioned: bool,
) -> str:
    if samesite is not None and samesite.title() not in ("Lax", "Strict", "None"):
        raise ValueError(f"`samesite` is {samesite!r}: it is Lax, Strict or None")
    parts = [
        f"Domain={domain}" if domain else None,
        "Secure" if secure else None,
        "HttpOnly" if httponly else None,
        f"Path={path}",
        f"SameSite={samesite.title()}" if samesite else None,
        "Partitioned" if partitioned else None,
    ]
    return "".join(f"; {part}" for part in parts if part)


def _cookies(scope: Scope, name: str) -> Iterator[str]:
    """The values of all cookies of that name: there is one for each path and domain that has it."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    for field, value in headers:
        if field == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                key, _, cookie = pair.strip().partition("=")
                if key == name and cookie:
                    yield cookie.strip('"')


def _joined(
    sent: Iterable[tuple[bytes, bytes]], added: list[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """Adds header fields; what varies already is not said twice."""
    headers = [(bytes(name), bytes(value)) for name, value in sent]
    varies = {
        word.strip().lower()
        for name, value in headers
        if name.lower() == b"vary"
        for word in value.split(b",")
    }
    if varies & {b"cookie", b"*"}:
        added = [field for field in added if field[0] != b"vary"]
    return headers + added
