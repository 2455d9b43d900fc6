"""What stands around the routes of an application and does not move with them, as plain data.

A view that moves from Flask to FastAPI leaves the functions behind that ran before it, and a view
that took the socket of its connection finds none in this server. `twinspan check` tells both. The
rules are those of `_routers`: nothing is imported, only what is in ``sys.modules`` is in use; and
what cannot be read is left out, because nothing here decides where a request goes.
"""

# One reader in two modules: the way through wrappers is the same for both.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, TypedDict, cast

from twinspan._routers import _attribute, _source, _wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class HookInfo(TypedDict):
    """A function that runs before the views."""

    name: str
    scope: str | None
    """The blueprint that it belongs to; None for the whole application."""
    file: str | None
    line: int | None


class SocketInfo(TypedDict):
    """Something that needs the socket of the connection, which no WSGI application gets here."""

    extension: str
    endpoint: str | None
    file: str | None
    line: int | None


class AppNotes(TypedDict):
    """What is known of an application beside its routes."""

    before_request: list[HookInfo]
    middleware: list[str]
    """Dotted names, outermost first."""
    sockets: list[SocketInfo]


def read(app: object, router: object | None = None) -> AppNotes:
    """Read what stands around the routes of an application, or of a router named for it."""
    middleware: list[str] = []
    layers = list(_layers(app))
    for outer, inner in zip(layers, [*layers[1:], None], strict=True):
        middleware += _middleware_of(outer)
        if inner is not None and not _is_framework(outer):
            middleware.append(_name(outer))
    framework = next((layer for layer in (*layers, router) if _is_flask(layer)), None)
    return AppNotes(
        before_request=list(_before_request(framework)),
        middleware=middleware,
        sockets=list(_sockets(framework, layers)),
    )


def _layers(app: object) -> Iterator[object]:
    """Yield an application and what it wraps, from the outside in."""
    seen: list[object] = []
    current: object | None = app
    while current is not None and not any(current is earlier for earlier in seen):
        seen.append(current)
        # What `ProxyFix(app.wsgi_app)` wraps is a method of the application.
        current = _attribute(current, "__self__") or current
        yield current
        # `app.wsgi_app = ProxyFix(app.wsgi_app)` is another way to wrap.
        replaced = vars(current).get("wsgi_app") if _is_flask(current) else None
        current = replaced if _is_flask(current) else _wrapped(current)


def _is_flask(target: object) -> bool:
    classes = (
        _attribute(sys.modules.get("flask"), "Flask"),
        _attribute(sys.modules.get("quart"), "Quart"),
    )
    return any(isinstance(target, found) for found in classes if found is not None)


def _is_framework(target: object) -> bool:
    starlette: Any = _attribute(sys.modules.get("starlette.applications"), "Starlette")
    return _is_flask(target) or (starlette is not None and isinstance(target, starlette))


# Functions and middlewares ------------------------------------------------------------------------


def _before_request(app: object) -> Iterator[HookInfo]:
    """Yield the functions that Flask and Quart run before a view, the application's first."""
    functions: Mapping[str | None, Iterable[object]] = _attribute(app, "before_request_funcs") or {}
    for scope in sorted(functions, key=lambda scope: scope or ""):
        for function in functions[scope]:
            name, file, line = _source(function)
            yield HookInfo(name=name or "", scope=scope, file=file, line=line)


def _middleware_of(target: object) -> Iterator[str]:
    """Yield the middlewares that a framework puts around its own router."""
    starlette: Iterable[Any] = _attribute(target, "user_middleware") or ()
    if _is_framework(target) and isinstance(starlette, list):
        for entry in starlette:
            # `@app.middleware("http")` is a function behind a class that all of them share.
            arguments: Any = _attribute(entry, "kwargs") or {}
            function: Any = arguments.get("dispatch")
            yield _name(_attribute(entry, "cls") if function is None else function)
    handlers: Any = _attribute(sys.modules.get("django.core.handlers.base"), "BaseHandler")
    if handlers is not None and isinstance(target, handlers):
        yield from _attribute(sys.modules["django.conf"].settings, "MIDDLEWARE") or ()


def _name(target: object) -> str:
    return _source(target)[0] or type(target).__qualname__


# Sockets ------------------------------------------------------------------------------------------

# Keys of `environ` under which servers hand out a socket or a finished WebSocket.
_KEYS = {
    "gunicorn.socket": "gunicorn's socket",
    "werkzeug.socket": "Werkzeug's socket",
    "wsgi.websocket": "gevent-websocket",
}

# Packages that take the socket, by the names under which people install them.
_PACKAGES = {
    "flask_sock": "flask-sock",
    "geventwebsocket": "gevent-websocket",
    "simple_websocket": "simple-websocket",
}


def _sockets(app: object, layers: Iterable[object]) -> Iterator[SocketInfo]:
    flask: Any = _attribute(sys.modules.get("flask"), "Flask")
    if flask is not None and isinstance(app, flask):
        yield from _flask_views(app)
        extensions: Any = _attribute(app, "extensions") or {}
        socketio: Any = extensions.get("socketio")
        if socketio is not None:
            mode = _attribute(_attribute(socketio, "server"), "async_mode")
            name = f"Flask-SocketIO ({mode})" if mode else "Flask-SocketIO"
            yield SocketInfo(extension=name, endpoint=None, file=None, line=None)
            return
    engineio: Any = _attribute(sys.modules.get("engineio"), "WSGIApp")
    if engineio is not None and any(isinstance(layer, engineio) for layer in layers):
        yield SocketInfo(extension="python-socketio (WSGIApp)", endpoint=None, file=None, line=None)


def _flask_views(app: Any) -> Iterator[SocketInfo]:
    views: Mapping[str, object] = _attribute(app, "view_functions") or {}
    by_endpoint = {rule.endpoint: bool(rule.websocket) for rule in app.url_map.iter_rules()}
    for endpoint, view in views.items():
        extension = _taker(view)
        if extension is None and by_endpoint.get(endpoint):
            extension = "a WebSocket route of Werkzeug"
        if extension is not None:
            name, file, line = _source(view)
            yield SocketInfo(extension=extension, endpoint=name, file=file, line=line)


def _taker(view: object) -> str | None:
    """Tell what a view, or a wrapper around it, takes the socket with."""
    current: object | None = view
    seen: list[object] = []
    while current is not None and not any(current is earlier for earlier in seen):
        seen.append(current)
        code = _attribute(current, "__code__")
        if isinstance(code, CodeType):
            namespace: Mapping[str, object] = _attribute(current, "__globals__") or {}
            package = _package(namespace.get("__name__"))
            used = (namespace.get(name) for name in code.co_names)
            found = package or next(filter(None, map(_package, used)), None)
            keys = (_KEYS.get(const) for const in code.co_consts if isinstance(const, str))
            found = found or next(filter(None, keys), None)
            if found is not None:
                return found
        current = _attribute(current, "__wrapped__")
    return None


def _package(used: object) -> str | None:
    """Give the package of a module's name, a module or a class, if it is one that takes sockets."""
    if isinstance(used, ModuleType):
        used = used.__name__
    elif isinstance(used, type):
        used = cast("type[Any]", used).__module__
    return _PACKAGES.get(used.partition(".")[0]) if isinstance(used, str) else None
