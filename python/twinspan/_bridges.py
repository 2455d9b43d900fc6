"""Where an ASGI application hands requests to a WSGI application through a bridge.

A bridge (`WSGIMiddleware` of Starlette, FastAPI and a2wsgi, asgiref's `WsgiToAsgi`, and whatever
looks like them) makes a WSGI application pass for an ASGI one. The server can run such an
application itself, but only for requests that the router above would have sent to the bridge:
whatever stands before it, and whatever each request passes on its way, is told along.

Requests that stay with the outer application still reach the bridge. So every doubt is decided
for it: what cannot be told exactly is an obstacle, and a pattern may match too much but not too
little.
"""

# One reader in two modules: the way through wrappers and routers is the same for both.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from twinspan._routers import (
    _DEPTH,
    _ROOT,
    _WRAPPED,
    _anonymous,
    _attribute,
    _Below,
    _effective,
    _inner,
    _is_own,
    _source,
    _type_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twinspan._routers import RouteInfo


class Passed(TypedDict):
    """Code that stands before a bridge."""

    name: str
    """Dotted."""
    file: str | None
    line: int | None


class BridgeInfo(TypedDict):
    """One bridge."""

    prefix: str
    """Where it is mounted, without a slash at the end; empty at the root."""
    bridge: str
    """The dotted name of its class."""
    cost: str
    """What a request pays for it, as the end of a sentence."""
    obstacle: str | None
    """Why the server cannot take its place, as the end of a sentence."""
    passes: list[Passed]
    """What each request passes before the bridge, outermost first, and the bridge where it is
    not one whose code is known."""
    dependencies: list[Passed]
    """Dependencies of the applications above, which FastAPI does not run for what is mounted."""
    before: list[RouteInfo]
    """What keeps requests from it: whatever its routers try earlier."""
    application: object
    """What it calls with ``environ`` and ``start_response``."""


def find(app: object, router: object | None = None) -> list[BridgeInfo]:
    """Find the bridges in an application, or below the router that was named for it."""
    found = list(_walk(app, _Place(), ()))
    if not found and router is not None and router is not app:
        # What lies between the two is not known: the application as a whole stands for it.
        found = list(_walk(router, _Place(passes=(_passed(type(app)),)), ()))
    return found


@dataclass(frozen=True)
class _Place:
    """Where an object is: what comes before it, and what holds for all below."""

    below: _Below = _ROOT
    obstacle: str | None = None
    passes: tuple[Passed, ...] = ()
    dependencies: tuple[Passed, ...] = ()
    before: tuple[RouteInfo, ...] = ()

    def behind(self, *passed: Passed) -> _Place:
        return replace(self, passes=self.passes + passed)

    def hindered(self, obstacle: str | None) -> _Place:
        # The outermost counts: what is below it cannot be reached otherwise.
        return replace(self, obstacle=self.obstacle or obstacle)

    def after(self, *routes: RouteInfo) -> _Place:
        return replace(self, before=self.before + routes)

    def bridge(self, target: object, bridge: _Bridge) -> BridgeInfo:
        prefix = self.below.template
        own = [] if bridge.is_known else [_passed(type(target))]
        return BridgeInfo(
            prefix=prefix,
            bridge=_type_name(target),
            cost=bridge.cost,
            obstacle=self.obstacle or self._hidden(prefix),
            passes=[*self.passes, *own],
            dependencies=list(self.dependencies),
            before=list(self.before),
            application=bridge.application,
        )

    def _hidden(self, prefix: str) -> str | None:
        for route in self.before:
            # The pattern of a mount is open at its end.
            is_mount = not route["pattern"].endswith("$") and route["host"] is None
            if is_mount and re.match(route["pattern"], prefix + "/"):
                return f"`{route['template']}` before it takes all of its requests"
        return None


def _walk(target: object, place: _Place, seen: tuple[object, ...]) -> Iterator[BridgeInfo]:
    """Look into `target` and into what it wraps."""
    for _ in range(_DEPTH):
        if any(target is earlier for earlier in seen):
            return
        seen = (*seen, target)
        bridge = _known(target)
        if bridge is None:
            router = _router(target)
            if router is not None:
                yield from _routed(target, router, place, seen)
                return
            bridge = _look_alike(target)
        if bridge is not None:
            yield place.bridge(target, bridge)
            return
        wrapped = _wrapped(target)
        if wrapped is None:
            return
        place = place.behind(_passed(type(target)))
        target = wrapped


def _wrapped(target: object) -> object | None:
    candidates = (_attribute(target, name) for name in _WRAPPED)
    return next((app for app in candidates if callable(app) and not isinstance(app, type)), None)


# Routers ------------------------------------------------------------------------------------------


def _router(target: object) -> Any:
    """Give the router that an application of Starlette or FastAPI has, or is."""
    routing = sys.modules.get("starlette.routing")
    if routing is None:
        return None
    if isinstance(target, routing.Router):
        return target
    router = _attribute(target, "router")
    return router if isinstance(router, routing.Router) else None


def _routed(
    target: object, router: Any, place: _Place, seen: tuple[object, ...]
) -> Iterator[BridgeInfo]:
    """Go through a router in the order of trial."""
    routing: Any = sys.modules["starlette.routing"]
    if target is not router:
        place = _within_application(target, place)
    place = replace(
        place.behind(*_stacked(router)),
        dependencies=(*place.dependencies, *_dependencies(router)),
    )
    of_router = cast("Any", type(router))
    if not _is_own(of_router.app, "starlette", "fastapi"):
        place = place.hindered(f"`{_type_name(router)}` routes in code of its own")
    for route, kind in _effective(_attribute(router, "routes")):
        if isinstance(kind, routing.WebSocketRoute):
            continue
        of_route = cast("Any", type(kind))
        is_plain = _is_own(of_route.matches, "starlette", "fastapi")
        own_code = f"`{_type_name(kind)}` decides in code of its own which requests it takes"
        obstacle = None if is_plain else own_code
        if isinstance(kind, routing.Route):
            inside = place.hindered(obstacle or "it is reached by a route, and not mounted")
            inside = replace(inside, below=place.below.mounted(route.path, ""))
            yield from _walk(_attribute(kind, "app"), inside, seen)
            taken = [
                place.below.route(
                    route.path,
                    _inner(route.path_regex),
                    methods=route.methods or None,
                    endpoint=route.endpoint,
                )
            ]
        elif isinstance(kind, routing.Mount):
            pattern = _inner(route.path_regex).removesuffix("(?:.*)$").removesuffix("/")
            below = place.below.mounted(route.path, pattern)
            if "{" in route.path:
                obstacle = obstacle or "its path has parameters"
            yield from _walk(route.app, replace(place.hindered(obstacle), below=below), seen)
            taken = below.everything(("http",), route.app)
        elif isinstance(kind, routing.Host):
            inside = place.hindered(obstacle or "it answers certain hosts only")
            yield from _walk(route.app, inside, seen)
            host = _anonymous(route.host_regex.pattern)
            taken = replace(place.below, host=host).everything(("http",), route.app)
        else:
            taken = []
            obstacle = own_code
        place = place.after(*taken)
        if obstacle is own_code:
            place = place.hindered(f"before it, {own_code}")
    default = place.hindered("it answers what the router has no route for")
    yield from _walk(_attribute(router, "default"), default, seen)


def _within_application(app: object, place: _Place) -> _Place:
    """Give the place behind the middleware of an application, in front of its router."""
    prefix = _attribute(app, "root_path")
    if isinstance(prefix, str) and prefix.strip("/"):
        place = place.hindered(
            f"`root_path={prefix!r}` of `{_type_name(app)}` replaces the one of the server "
            "(say `--root-path` instead)"
        )
    added = [_middleware(entry) for entry in _attribute(app, "user_middleware") or ()]
    own_call = type(app).__call__
    if not _is_own(own_call, "starlette", "fastapi"):
        added.insert(0, _passed(own_call))
    if _attribute(app, "max_body_size") is not None:
        added.insert(0, Passed(name=f"{_type_name(app)}(max_body_size=…)", file=None, line=None))
    return place.behind(*added)


def _middleware(entry: Any) -> Passed:
    """Name what `add_middleware` was given; a function instead of the class around it."""
    arguments: Any = _attribute(entry, "kwargs") or {}
    function: Any = arguments.get("dispatch")
    return _passed(function or entry.cls)


def _stacked(router: Any) -> list[Passed]:
    """Name the middleware that a router has been given for itself."""
    found: list[Passed] = []
    current = _attribute(router, "middleware_stack")
    for _ in range(_DEPTH):
        # The innermost is a method of the router.
        if current is None or _attribute(current, "__self__") is router:
            break
        kind = cast("Any", type(current))
        found.append(_passed(kind))
        current = _wrapped(current)
    return found


def _dependencies(router: Any) -> list[Passed]:
    entries = _attribute(router, "dependencies") or ()
    functions = [_attribute(entry, "dependency") for entry in entries]
    return [_passed(function) for function in functions if function is not None]


def _passed(code: object) -> Passed:
    name, file, line = _source(code)
    return Passed(name=name or repr(code), file=file, line=line)


# Bridges ------------------------------------------------------------------------------------------


class _Bridge(NamedTuple):
    application: object
    cost: str
    is_known: bool
    """Its class is one whose code does nothing but bridge."""


_IN_MEMORY = "reads each request body into memory before the application runs"
_LOOP = "moves every request and every block of a response across the event loop"
_IN_TURN = "reads each request body first, and runs one request at a time"

# Module, class, the attribute that holds the application, cost.
_BRIDGES = (
    ("starlette.middleware.wsgi", "WSGIMiddleware", "app", _IN_MEMORY),
    ("fastapi.middleware.wsgi", "WSGIMiddleware", "app", _IN_MEMORY),
    ("a2wsgi.wsgi", "WSGIMiddleware", "app", _LOOP),
    ("asgiref.wsgi", "WsgiToAsgi", "wsgi_application", _IN_TURN),
)


def _known(target: object) -> _Bridge | None:
    """Recognise the bridges that everybody uses, and classes made from them."""
    for module, name, attribute, cost in _BRIDGES:
        bridge = _attribute(sys.modules.get(module), name)
        if isinstance(bridge, type) and isinstance(target, bridge):
            application = _attribute(target, attribute)
            if callable(application):
                return _Bridge(application, cost, type(target) is bridge)
    return None


def _look_alike(target: object) -> _Bridge | None:
    """Recognise an ASGI application that holds a WSGI application, and no other."""
    if not _is_asgi(target):
        return None
    held = [value for value in _held(target) if callable(value) and not isinstance(value, type)]
    applications = [value for value in held if _is_wsgi(value)]
    if len(applications) != 1 or any(_is_asgi(value) for value in held):
        return None
    return _Bridge(applications[0], _LOOP, is_known=False)


def _held(target: object) -> list[object]:
    try:
        return list(vars(target).values())
    except TypeError:  # it has no attributes of its own
        return []


def _is_asgi(target: object) -> bool:
    """Whether it takes (scope, receive, send)."""
    names = _parameters(target)
    return len(names) == 3 and (
        names[0] == "scope" or inspect.iscoroutinefunction(_attribute(type(target), "__call__"))
    )


def _is_wsgi(target: object) -> bool:
    """Whether it takes (environ, start_response), by names that leave no doubt."""
    names = _parameters(target)
    return len(names) == 2 and ("env" in names[0] or names[1].startswith("start"))


def _parameters(target: object) -> list[str]:
    """Name the arguments that a call must have; nothing where that cannot be said."""
    if not callable(target) or isinstance(target, type):
        return []
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind in positional and parameter.default is parameter.empty
    ]
