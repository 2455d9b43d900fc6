"""The applications of a server from within a request to one of them."""

from __future__ import annotations

import asyncio
import difflib
import importlib
import json as jsonlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import quote, urlencode

from twinspan._routers import layers
from twinspan._serve import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twinspan._twinspan import Apps as _Native
    from twinspan._twinspan import Pending

TIMEOUT_SECONDS = 5.0
LIMIT_BYTES = 16 * 1024 * 1024

Query = Mapping[str, object]
"""What is added as a query string; a list is a name that comes more than once."""

Fields = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields."""


def apps(connection: object) -> Apps:
    """The applications of the server that serves ``connection``.

    That is a request of Starlette, FastAPI, Flask or Django, a WebSocket, an ASGI scope or a WSGI
    ``environ``; or a :class:`twinspan.Server` that has started, where there is no request.

    Raises ``RuntimeError`` where another server serves it.
    """
    if isinstance(connection, Server):
        native = connection.native_apps
        if native is None:
            raise RuntimeError("the server has not started")
        return Apps(native, _Request())
    for candidate in (
        connection,
        getattr(connection, "scope", None),
        getattr(connection, "environ", None),
    ):
        if isinstance(candidate, Mapping):
            found = cast("Mapping[str, Any]", candidate)
            extensions: Any = found.get("extensions") or {}
            own: Any = extensions.get("twinspan", {})
            native: Any = own.get("apps") or found.get("twinspan.apps")
            if native is not None:
                return Apps(native, _request(found))
    raise RuntimeError(
        f"{connection!r} is no request that twinspan serves: only there are other applications "
        "at hand"
    )


@dataclass(frozen=True)
class _Request:
    """What a request tells of the site."""

    scheme: str = "http"
    host: str | None = None
    client: tuple[str, int] | None = None
    prefix: str | None = None
    """The public prefix, where a proxy has told it."""
    is_copy: bool = False
    """A shadow copy: what it asks others for is one too."""


def _request(found: Mapping[str, Any]) -> _Request:
    if "wsgi.version" in found:
        host = found.get("HTTP_HOST") or f"{found['SERVER_NAME']}:{found['SERVER_PORT']}"
        client = None
        if found.get("REMOTE_ADDR"):
            client = (str(found["REMOTE_ADDR"]), int(found.get("REMOTE_PORT") or 0))
        return _Request(
            scheme=found["wsgi.url_scheme"],
            host=host,
            client=client,
            prefix=_prefix(
                found["SCRIPT_NAME"].encode("latin-1").decode("utf-8", "replace"),
                found.get("HTTP_X_FORWARDED_PREFIX"),
            ),
            is_copy="twinspan.shadow" in found,
        )
    headers: dict[bytes, bytes] = {}
    for name, value in cast("Iterable[tuple[bytes, bytes]]", found["headers"]):
        headers[name] = headers[name] + b"," + value if name in headers else value
    forwarded = headers.get(b"x-forwarded-prefix")
    return _Request(
        scheme=str(found["scheme"]).replace("ws", "http"),
        host=headers[b"host"].decode("latin-1") if b"host" in headers else None,
        client=tuple(found["client"]) if found.get("client") else None,
        prefix=_prefix(
            found["root_path"], None if forwarded is None else forwarded.decode("latin-1")
        ),
        is_copy="twinspan.shadow" in found["extensions"],
    )


def _prefix(root_path: str, forwarded: str | None) -> str | None:
    """What `X-Forwarded-Prefix` says, where the server has believed it: then it begins the path."""
    if forwarded is None:
        return None
    prefix = "".join(part.strip().rstrip("/") for part in forwarded.split(","))
    return prefix if prefix and f"{root_path}/".startswith(f"{prefix}/") else None


class Headers(Mapping[str, str]):
    """The header fields of a response; names are alike in upper and lower case.

    A field that came more than once is one value, joined by commas; :meth:`get_all` has each.
    """

    def __init__(self, fields: Sequence[tuple[str, bytes]]) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name.lower(), []).append(value.decode("latin-1"))

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._fields[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def get_all(self, name: str) -> list[str]:
        """Every value of a field, in order: ``Set-Cookie`` must not be joined."""
        return list(self._fields.get(name.lower(), ()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"


@dataclass(frozen=True)
class Response:
    """What another application has answered."""

    status: int
    headers: Headers
    content: bytes

    @property
    def text(self) -> str:
        """The content as UTF-8; what is none is replaced."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The content as JSON.

        Raises ``ValueError`` for anything else.
        """
        return jsonlib.loads(self.content)


class Apps:
    """The applications of a server, by the names of its configuration; :func:`apps` has it.

    It may be kept beyond its request, and used on any thread.
    """

    def __init__(self, native: _Native, request: _Request) -> None:
        self._native = native
        self._request = request

    def url_for(
        self,
        name: str,
        /,
        *,
        _external: bool = False,
        _query: Query | None = None,
        **values: object,
    ) -> str:
        """The URL of a route: ``url_for("legacy:users.detail", id=3)`` is ``/users/3``.

        ``name`` is the application, a colon, and what its framework calls the route: an endpoint of
        Flask, the name of a route of Starlette and FastAPI, the name of a URL of Django. The mount
        of the application and the public prefix of the site come before the path. ``_query`` is
        added as a query string; ``_external`` adds scheme and host, those of the request.

        Raises ``LookupError`` where there is no such application or route, or where its values do
        not fit.
        """
        app, colon, route = name.partition(":")
        if not colon:
            problem = f"`{name}` names no application: write `APP:ROUTE`"
            raise LookupError(problem)
        mounted = self._native.mounted()
        if app not in mounted:
            raise LookupError(f"there is no application `{app}`; there are {_listed(mounted)}")
        if _external and self._request.host is None:
            problem = "the host is known within a request only: add the path to your own address"
            raise ValueError(problem)
        target, mount = mounted[app]
        built = _built(app, target, route, values, self._prefix + mount)
        url = quote(built.path, safe=_SAFE) if built.raw else built.path
        if _query:
            url += ("&" if "?" in url else "?") + urlencode(_query, doseq=True)
        if not _external and built.host is None:
            return url
        host = built.host or self._request.host
        if not _external:
            return f"//{host}{url}"
        scheme = self._request.scheme
        if built.websocket:
            scheme = {"http": "ws", "https": "wss"}[scheme]
        return f"{scheme}://{host}{url}"

    def call(
        self,
        app: str,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Fields | None = None,
        content: bytes = b"",
        json: object = None,
        timeout: float = TIMEOUT_SECONDS,
        limit: int = LIMIT_BYTES,
    ) -> Response:
        """Asks another application, without a socket, and waits for its answer.

        ``path`` is the application's own, without its mount, and may have a query. The host, the
        scheme and the client are those of the request, if there is one; header fields are only
        those given. ``json`` is sent as the content. ``timeout`` is in seconds and covers
        everything; ``limit`` is how many bytes the answer may have.

        An application that fails answers 500, one without a free thread and with a full queue 503.

        Raises ``LookupError`` for an application that is not there, ``ValueError`` for what is no
        request, ``TimeoutError``, ``ConnectionError`` for an answer that breaks off or is longer
        than ``limit``, and ``RuntimeError`` on a thread that runs an event loop, where
        :meth:`acall` belongs.
        """
        _refuse_on_a_loop()
        begin = self._begin(
            app, method, path, query, headers, content, json, timeout=timeout, limit=limit
        )
        return _response(begin(None).wait())

    async def acall(
        self,
        app: str,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Fields | None = None,
        content: bytes = b"",
        json: object = None,
        timeout: float = TIMEOUT_SECONDS,
        limit: int = LIMIT_BYTES,
    ) -> Response:
        """Like :meth:`call`, for coroutines. Cancelled, it is a client that leaves."""
        begin = self._begin(
            app, method, path, query, headers, content, json, timeout=timeout, limit=limit
        )
        loop = asyncio.get_running_loop()
        if not self._native.is_loop(loop):
            # A loop of somebody else, such as that of an `async def` view in Flask.
            return _response(await asyncio.to_thread(lambda: begin(None).wait()))
        over: asyncio.Future[None] = loop.create_future()
        pending = begin(lambda: over.done() or over.set_result(None))
        try:
            await over
        except asyncio.CancelledError:
            pending.cancel()
            raise
        return _response(pending.wait())

    @property
    def _prefix(self) -> str:
        return self._native.root_path if self._request.prefix is None else self._request.prefix

    def _begin(
        self,
        app: str,
        method: str,
        path: str,
        query: Query | None,
        headers: Fields | None,
        content: bytes,
        json: object,
        *,
        timeout: float,
        limit: int,
    ) -> Callable[[Callable[[], object] | None], Pending]:
        fields = _pairs(headers)
        names = {name for name, _ in fields}
        if b"host" not in names:
            host = self._request.host or "localhost"
            fields.append((b"host", host.encode("latin-1")))
        if json is not None:
            if content:
                raise ValueError("`content` and `json` are two contents: give one of them")
            content = jsonlib.dumps(json).encode()
            if b"content-type" not in names:
                fields.append((b"content-type", b"application/json"))
        target = quote(path, safe=_SAFE + "%?")
        if query:
            target += ("&" if "?" in target else "?") + urlencode(query, doseq=True)

        def begin(done: Callable[[], object] | None) -> Pending:
            return self._native.start(
                app,
                method,
                target,
                fields,
                content,
                prefix=self._prefix,
                scheme=self._request.scheme,
                client=self._request.client,
                is_copy=self._request.is_copy,
                timeout=timeout,
                limit=limit,
                done=done,
            )

        return begin


# What stands for itself in a path (RFC 3986 §3.3).
_SAFE = "/:@!$&'()*+,;=~-._"


def _refuse_on_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "`call` would hold up the event loop of this thread, and everything that runs on it: "
        "write `await apps(request).acall(…)`"
    )


def _pairs(headers: Fields | None) -> list[tuple[bytes, bytes]]:
    if headers is None:
        return []
    if isinstance(headers, Mapping):
        headers = cast("Mapping[str, str]", headers).items()
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _response(answer: tuple[int, list[tuple[str, bytes]], bytes]) -> Response:
    status, fields, content = answer
    return Response(status, Headers(fields), content)


# URLs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Built:
    """What a framework has made of a name."""

    path: str
    raw: bool = False
    """It is not encoded."""
    host: str | None = None
    websocket: bool = False


def _built(app: str, target: object, name: str, values: dict[str, object], root: str) -> _Built:
    for layer in layers(target):
        for build in (_werkzeug, _starlette, _django):
            built = build(app, layer, name, values, root)
            if built is not None:
                return built
    raise LookupError(
        f"the router of `{app}` is none that URLs can be made with: known are those of Flask, "
        f'Starlette, FastAPI and Django; `router = "module:attr"` in `[apps.{app}]` names one that '
        "is hidden"
    )


def _werkzeug(
    app: str, layer: Any, name: str, values: dict[str, object], root: str
) -> _Built | None:
    routing = sys.modules.get("werkzeug.routing")
    if routing is None:
        return None
    # What `ProxyFix(app.wsgi_app)` wraps is a method of the application.
    url_map = getattr(getattr(layer, "__self__", layer), "url_map", layer)
    if not isinstance(url_map, routing.Map):
        return None
    bound = url_map.bind("localhost", script_name=root or "/")
    try:
        url: str = bound.build(name, values)
    except (routing.BuildError, TypeError, ValueError) as error:
        endpoints = {str(rule.endpoint) for rule in url_map.iter_rules()}
        _refuse(app, name, values, endpoints, error)
    if url.startswith("//"):
        host, _, path = url[2:].partition("/")
        return _Built(f"/{path}", host=host)
    return _Built(url)


def _starlette(
    app: str, layer: Any, name: str, values: dict[str, object], root: str
) -> _Built | None:
    routing = sys.modules.get("starlette.routing")
    if routing is None or not hasattr(layer, "url_path_for"):
        return None
    try:
        path = layer.url_path_for(name, **values)
    except (routing.NoMatchFound, AssertionError, TypeError, ValueError) as error:
        routes: list[Any] = list(getattr(layer, "routes", ()))
        _refuse(app, name, values, {getattr(route, "name", None) or "" for route in routes}, error)
    return _Built(
        root + str(path),
        raw=True,
        host=getattr(path, "host", None) or None,
        websocket=getattr(path, "protocol", None) == "websocket",
    )


def _django(app: str, layer: Any, name: str, values: dict[str, object], root: str) -> _Built | None:
    handlers = sys.modules.get("django.core.handlers.base")
    if handlers is None or not isinstance(layer, handlers.BaseHandler):
        return None
    urls: Any = importlib.import_module("django.urls")
    before = urls.get_script_prefix()
    urls.set_script_prefix(f"{root}/")
    try:
        return _Built(urls.reverse(name, kwargs=values))
    except urls.NoReverseMatch as error:
        _refuse(app, name, values, set(), error)
    finally:
        urls.set_script_prefix(before)


def _refuse(
    app: str, name: str, values: dict[str, object], names: set[str], error: Exception
) -> NoReturn:
    if name in names:
        given = _listed(values) if values else "none"
        problem = f"the route `{name}` of `{app}` cannot be made with these values: {given}"
    else:
        problem = f"`{app}` has no route `{name}`"
        near = difflib.get_close_matches(name, names, 1)
        if near:
            problem += f"; there is `{near[0]}`"
    raise LookupError(f"{problem} ({error})") from error


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
