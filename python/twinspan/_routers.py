"""What an application's own router defines, as plain data.

The server asks once, when an application has started, and matches natively from then on. Read are
Starlette and FastAPI, Flask, Quart and other users of Werkzeug's ``Map``, and Django, also below
middleware that is known to pass everything on. A framework that an application uses has been
imported by it, so nothing is imported here: what is not in ``sys.modules`` is not in use.

Patterns are matched against the decoded path below the mount, from its start to where they end.
They are written in the language of ``re``; named groups lose their names, because a mount and a
route below it may use the same.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Kind = Literal["http", "websocket"]


class RouteInfo(TypedDict):
    """One route."""

    template: str
    """As the framework writes it: ``/items/{id}``, ``/users/<int:id>``."""
    pattern: str
    """Regular expression from the start of the path, with an end anchor unless more may follow."""
    kind: Kind
    methods: list[str] | None
    """Upper case and sorted; None is every method.

    The HEAD and OPTIONS that a framework adds by itself are left out."""
    host: str | None
    """Regular expression over the host in lower case, without the port."""
    redirects_slash: bool
    """The router redirects to this route when only the slash at the end differs."""
    exact: bool
    """False when Python code decides what the pattern can only approximate."""
    endpoint: str | None
    file: str | None
    line: int | None
    guards: list[str] | None
    """What runs before the view and may refuse: FastAPI's dependencies, security schemes included.

    None where that cannot be known: what a decorator does is its own affair."""


class UnreadableRouter(Exception):  # noqa: N818 - it is the router that is unreadable
    """An object has no router that can be read, or one of its routes cannot be expressed."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"the router of {what} cannot be read")


def read(app: object, router: object | None = None) -> list[RouteInfo]:
    """Read the routes of an application, or of the router that was named for it.

    Raises:
        UnreadableRouter: there is no router that can be read.
    """
    return list(_read(app if router is None else router, _ROOT, ()))


@dataclass(frozen=True)
class _Below:
    """Where routes are: what comes before them, and what holds for all of them."""

    template: str = ""
    pattern: str = ""
    host: str | None = None
    exact: bool = True
    protocol: Kind = "http"
    """What a router that serves either kind is used for."""

    def mounted(self, template: str, pattern: str) -> _Below:
        return replace(self, template=self.template + template, pattern=self.pattern + pattern)

    def route(
        self,
        template: str,
        pattern: str,
        *,
        kind: Kind = "http",
        methods: Iterable[str] | None = None,
        redirects_slash: bool = False,
        exact: bool = True,
        endpoint: object = None,
        guards: list[str] | None = None,
    ) -> RouteInfo:
        name, file, line = _source(endpoint)
        return RouteInfo(
            template=(self.template + template) or "/",
            pattern="^" + self.pattern + pattern,
            kind=kind,
            methods=None if methods is None else sorted({method.upper() for method in methods}),
            host=self.host,
            redirects_slash=redirects_slash,
            exact=exact and self.exact,
            endpoint=name,
            file=file,
            line=line,
            guards=guards,
        )

    def everything(self, kinds: Iterable[Kind], endpoint: object) -> Iterator[RouteInfo]:
        """Everything below a mount whose inside cannot be read."""
        for kind in kinds:
            yield self.route("/", "/", kind=kind, endpoint=endpoint)


_ROOT = _Below()

# The objects on the way to the one that is read: an application may contain itself.
_Seen = tuple[object, ...]

# More wrappers than anybody stacks: some objects answer to every name, without end.
_DEPTH = 32

# Where wrappers keep what they pass everything on to. `application_mapping` and the like, where a
# wrapper decides by itself, are not among them: it would be a guess.
_WRAPPED = ("app", "application", "wrapped_app", "_app", "wsgi_app", "wsgi_application", "inner")


def _read(target: object, below: _Below, seen: _Seen) -> Iterable[RouteInfo]:
    """Read the router in `target` or in what it wraps."""
    for current in layers(target):
        if any(current is earlier for earlier in seen):
            break
        seen = (*seen, current)
        for reader in _READERS:
            routes = reader(current, below, seen)
            if routes is not None:
                return routes
    raise UnreadableRouter(_describe(target))


def layers(target: object) -> Iterator[object]:
    """Yield an application, and what it passes everything on to, from the outside in."""
    current: object | None = target
    for _ in range(_DEPTH):
        if current is None:
            return
        yield current
        current = _wrapped(current)


def _wrapped(target: object) -> object | None:
    """Give what a wrapper passes everything on to."""
    found = (_attribute(target, name) for name in _WRAPPED)
    return next((app for app in found if callable(app) and not isinstance(app, type)), None)


# Starlette and FastAPI ----------------------------------------------------------------------------


def _starlette(target: object, below: _Below, seen: _Seen) -> Iterable[RouteInfo] | None:
    routing = sys.modules.get("starlette.routing")
    if routing is None:
        return None
    if isinstance(target, list):
        routes = cast("list[object]", target)
        if routes and all(isinstance(route, routing.BaseRoute) for route in routes):
            return _starlette_routes(routes, routing, below, seen, redirects_slash=True)
        return None
    router: Any = target if isinstance(target, routing.Router) else _attribute(target, "router")
    if not isinstance(router, routing.Router):
        return None
    redirects_slash = bool(_attribute(router, "redirect_slashes"))
    places = [below]
    # FastAPI(root_path="/api") answers with and without its prefix.
    prefix = _attribute(target, "root_path")
    if isinstance(prefix, str) and prefix.strip("/"):
        prefix = "/" + prefix.strip("/")
        places.append(below.mounted(prefix, re.escape(prefix)))
    return [
        info
        for place in places
        for infos in (
            _starlette_routes(
                _attribute(router, "routes"), routing, place, seen, redirects_slash=redirects_slash
            ),
            _fastapi_frontends(router, place),
        )
        for info in infos
    ]


def _starlette_routes(
    routes: Iterable[object],
    routing: Any,
    below: _Below,
    seen: _Seen,
    *,
    redirects_slash: bool,
) -> list[RouteInfo]:
    found: list[RouteInfo] = []
    for route, kind in _effective(routes):
        exact = _is_own(cast("type[Any]", type(kind)).matches, "starlette", "fastapi")
        if isinstance(kind, (routing.Route, routing.WebSocketRoute)):
            websocket = isinstance(kind, routing.WebSocketRoute)
            found.append(
                below.route(
                    route.path,
                    _inner(route.path_regex),
                    kind="websocket" if websocket else "http",
                    methods=None if websocket else _starlette_methods(route),
                    redirects_slash=redirects_slash,
                    exact=exact,
                    endpoint=route.endpoint,
                    guards=_guards(_attribute(route, "dependant")),
                )
            )
        elif isinstance(kind, routing.Mount):
            # The pattern of a mount ends in `/(?P<path>.*)$`.
            prefix = _inner(route.path_regex).removesuffix("(?:.*)$").removesuffix("/")
            place = replace(below.mounted(route.path, prefix), exact=below.exact and exact)
            infos = _mounted(route.app, place, seen)
            if redirects_slash:
                root = f"^{place.pattern}/"
                for info in infos:
                    # What answers at the root of a mount is redirected to by the router around it.
                    info["redirects_slash"] |= info["pattern"] in {root, root + "$"}
            found += infos
        elif isinstance(kind, routing.Host):
            host = _anonymous(route.host_regex.pattern)
            if below.host is not None:
                host = f"(?={below.host}){host}"
            found += _mounted(
                route.app, replace(below, host=host, exact=below.exact and exact), seen
            )
        else:
            what = f"an application with the route {route!r}, a {_type_name(route)},"
            raise UnreadableRouter(what)
    return found


def _effective(routes: Iterable[object]) -> Iterator[tuple[Any, Any]]:
    """Yield every route with the object that tells its kind.

    Newer FastAPI keeps included routers nested, and tells their routes through contexts.
    """
    contexts = _attribute(sys.modules.get("fastapi.routing"), "iter_route_contexts")
    if contexts is None:
        for route in routes:
            yield route, route
        return
    for context in contexts(routes):
        yield context, context.original_route


def _starlette_methods(route: Any) -> set[str] | None:
    methods: Iterable[str] | None = route.methods
    if not methods:
        methods = None
        endpoints = sys.modules.get("starlette.endpoints")
        endpoint = route.endpoint
        if (
            endpoints
            and isinstance(endpoint, type)
            and issubclass(endpoint, endpoints.HTTPEndpoint)
        ):
            names = ("get", "head", "post", "put", "patch", "delete", "options")
            methods = [name.upper() for name in names if hasattr(endpoint, name)]
    return None if methods is None else _without_head(methods)


def _guards(dependant: object) -> list[str] | None:
    """Name the dependencies of a route, those of its routers and of the application included."""
    if dependant is None:
        return None
    names: dict[str, None] = {}
    waiting: list[Any] = list(_attribute(dependant, "dependencies") or ())
    while waiting:
        dependency = waiting.pop(0)
        name, _, _ = _source(_attribute(dependency, "call"))
        if name is not None:
            names[name] = None
        waiting += _attribute(dependency, "dependencies") or ()
    return list(names)


def _mounted(app: object, below: _Below, seen: _Seen) -> list[RouteInfo]:
    """Read what is mounted in an ASGI application; what cannot be read owns all below it."""
    try:
        return list(_read(app, below, seen))
    except UnreadableRouter:
        files = _attribute(sys.modules.get("starlette.staticfiles"), "StaticFiles")
        only_http = files is not None and isinstance(app, files)
        return list(below.everything(("http",) if only_http else ("http", "websocket"), app))


def _fastapi_frontends(router: object, below: _Below) -> Iterator[RouteInfo]:
    """Yield the directories of `app.frontend()`, which FastAPI asks after all routes."""
    candidates = _attribute(router, "_iter_low_priority_routes")
    for candidate in candidates() if candidates is not None else ():
        group = _attribute(candidate, "original_route") or candidate
        prefix = _attribute(candidate, "frontend_prefix") or ""
        for frontend in _attribute(group, "routes") or ():
            path = (prefix + frontend.path).rstrip("/")
            # Its files are not routes: it may still find nothing.
            for pattern in (re.escape(path) + "$", re.escape(path) + "/"):
                if pattern != "$":
                    yield below.route(
                        path + "/{path}",
                        pattern,
                        methods=("GET",),
                        exact=False,
                        endpoint=frontend.app,
                    )


# Werkzeug: Flask, Quart ---------------------------------------------------------------------------

_RULE_PART = re.compile(
    r"(?P<slash>/)|<(?:(?:[a-zA-Z_]\w*)(?:\(.*?\))?:)?(?P<variable>[a-zA-Z_]\w*)>|(?P<static>[^</]+)"
)


def _werkzeug(target: object, below: _Below, seen: _Seen) -> Iterable[RouteInfo] | None:
    dispatcher = _attribute(
        sys.modules.get("werkzeug.middleware.dispatcher"), "DispatcherMiddleware"
    )
    if dispatcher is not None and isinstance(target, dispatcher):
        return _dispatched(target, below, seen)
    routing = sys.modules.get("werkzeug.routing")
    if routing is None:
        return None
    if isinstance(target, routing.Map):
        return _url_map(target, None, below)
    # What `ProxyFix(app.wsgi_app)` wraps is a method of the application.
    method_of = _attribute(target, "__self__")
    app = target if method_of is None else method_of
    url_map = _attribute(app, "url_map")
    if not isinstance(url_map, routing.Map):
        return None
    if method_of is None:
        # `app.wsgi_app = DispatcherMiddleware(app.wsgi_app, …)` adds to the application.
        for name in ("wsgi_app", "asgi_app"):
            outer = vars(app).get(name)
            if outer is not None:
                try:
                    return _read(outer, below, seen)
                except UnreadableRouter:
                    break
    return _url_map(url_map, app, below)


def _dispatched(target: Any, below: _Below, seen: _Seen) -> list[RouteInfo]:
    """Read a DispatcherMiddleware: the longest of its prefixes wins."""
    found: list[RouteInfo] = []
    mounts: Mapping[str, object] = target.mounts
    for prefix in sorted(mounts, key=len, reverse=True):
        place = below.mounted(prefix, re.escape(prefix))
        try:
            found += _read(mounts[prefix], place, seen)
        except UnreadableRouter:
            found.append(place.route("", "$", endpoint=mounts[prefix]))
            found += place.everything(("http",), mounts[prefix])
    found += _read(target.app, below, seen)
    return found


def _url_map(url_map: Any, app: Any, below: _Below) -> list[RouteInfo]:
    rules = [_Rule(rule) for rule in url_map.iter_rules() if not rule.build_only]
    rules.sort(key=lambda rule: rule.weight)
    found: list[RouteInfo] = []
    for parsed in rules:
        rule = parsed.rule
        on_host = _werkzeug_host(rule, url_map, app)
        if on_host is None:
            continue
        host, exact_host = on_host
        place = below if host is None else replace(below, host=host)
        views: Mapping[str, object] = _attribute(app, "view_functions") or {}
        route = functools.partial(
            place.route,
            rule.rule,
            kind="websocket" if rule.websocket else "http",
            methods=_werkzeug_methods(rule),
            exact=parsed.exact and exact_host,
            endpoint=views.get(rule.endpoint, rule.endpoint),
        )
        bare = parsed.pattern.removesuffix("/")
        if rule.strict_slashes or parsed.pattern == "/":
            found.append(route(parsed.pattern + "$", redirects_slash=rule.is_branch))
        else:
            found += [route(bare + "$"), route(bare + "/$")]
        if parsed.pattern == "/" and below.pattern:
            # Below a mount an empty path is read as `/`.
            found.append(route("$"))
    return found


class _Rule:
    """A rule of Werkzeug as one pattern, and its place in the order of trial."""

    def __init__(self, rule: Any) -> None:
        self.rule = rule
        self.exact = True
        text = re.sub("/{2,}", "/", rule.rule) if rule.merge_slashes else rule.rule
        converters: Mapping[str, Any] = _attribute(rule, "_converters")
        self.pattern, self.weight = self._parse(text, converters)

    def _parse(
        self, text: str, converters: Mapping[str, Any]
    ) -> tuple[str, list[tuple[bool, bool, int]]]:
        pattern = ""
        weights = [(False, False, 0)]
        for part in _RULE_PART.finditer(text):
            if part["slash"]:
                pattern += "/"
                weights.append((False, False, 0))
            elif part["static"]:
                pattern += re.escape(part["static"])
            else:
                converter = converters[part["variable"]]
                expression, within = _anonymous(converter.regex), True
                if converter.part_isolating:
                    expression, within = _within_segment(expression)
                pattern += f"(?:{expression})"
                # Literals are tried first, variables that go beyond a slash last.
                weights[-1] = (
                    True,
                    not converter.part_isolating,
                    weights[-1][2] + converter.weight,
                )
                self.exact &= within and _is_exact_converter(converter)
        return pattern, weights


def _is_exact_converter(converter: object) -> bool:
    """Whether the expression of a converter says all that its code checks."""
    limits = (_attribute(converter, name) for name in ("fixed_digits", "min", "max"))
    return _is_own(_attribute(converter, "to_python"), "werkzeug") and not any(
        limit not in (None, 0) for limit in limits
    )


def _werkzeug_methods(rule: Any) -> set[str] | None:
    if rule.methods is None or rule.websocket:
        return None
    methods = _without_head(rule.methods)
    # Set by Flask where it answers OPTIONS itself.
    return methods - {"OPTIONS"} if _attribute(rule, "provide_automatic_options") else methods


def _werkzeug_host(rule: Any, url_map: Any, app: Any) -> tuple[str | None, bool] | None:
    """Give the expression for the host and its exactness; None for a rule that never matches."""
    if url_map.host_matching:
        if not rule.host:
            return None
        # Hosts are matched without their port.
        name, port, _ = rule.host.partition(":")
        return _host_pattern(name, rule), not port
    subdomain: str = rule.subdomain or ""
    if app is None:
        return None, not subdomain
    config: Mapping[str, Any] = _attribute(app, "config") or {}
    server: str = config.get("SERVER_NAME") or ""
    if not (_attribute(app, "subdomain_matching") and server):
        return (None, True) if subdomain == (url_map.default_subdomain or "") else None
    name = server.partition(":")[0].lower()
    return _host_pattern(f"{subdomain}.{name}" if subdomain else name, rule), True


def _host_pattern(text: str, rule: Any) -> str:
    converters: Mapping[str, Any] = _attribute(rule, "_converters")
    parts = (
        re.escape(part["static"] or "/")
        if part["variable"] is None
        else f"(?:{_anonymous(converters[part['variable']].regex)})"
        for part in _RULE_PART.finditer(text)
    )
    return "^" + "".join(parts) + "$"


# Django -------------------------------------------------------------------------------------------


def _django(target: object, below: _Below, seen: _Seen) -> Iterable[RouteInfo] | None:
    channels: Any = sys.modules.get("channels.routing")
    if channels is not None:
        if isinstance(target, channels.ProtocolTypeRouter):
            protocols: Mapping[str, object] = _attribute(target, "application_mapping")
            kinds: tuple[Kind, ...] = ("http", "websocket")
            return [
                info
                for kind in kinds
                if kind in protocols
                for info in _read(protocols[kind], replace(below, protocol=kind), seen)
            ]
        if isinstance(target, channels.URLRouter):
            entries = _attribute(target, "routes")
            return _Urlconf(below.protocol).routes(entries, below.mounted("/", "/"))
    resolvers: Any = sys.modules.get("django.urls.resolvers")
    if resolvers is None:
        return None
    handlers: Any = sys.modules.get("django.core.handlers.base")
    patterns: object = target
    try:
        if handlers is not None and isinstance(target, handlers.BaseHandler):
            # Handlers have no urlconf of their own, there is one for the process.
            patterns = resolvers.get_resolver().url_patterns
        elif isinstance(target, resolvers.URLResolver):
            patterns = cast("Any", target).url_patterns
        elif inspect.ismodule(target):
            patterns = _attribute(target, "urlpatterns")
    except Exception as error:
        raise UnreadableRouter(f"the Django site ({type(error).__name__}: {error})") from error
    known = (resolvers.URLResolver, resolvers.URLPattern)
    if not isinstance(patterns, (list, tuple)):
        return None
    urlconf = cast("list[object]", patterns)
    if not all(isinstance(entry, known) for entry in urlconf):
        return None
    return _Urlconf("http").routes(urlconf, below.mounted("/", "/"))


class _Urlconf:
    """Reads the tree of a urlconf."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.settings: Any = sys.modules["django.conf"].settings
        self.translation: Any = sys.modules["django.utils.translation"]
        middleware: Iterable[str] = self.settings.MIDDLEWARE or ()
        self.appends_slash = bool(self.settings.APPEND_SLASH) and any(
            name.endswith(".CommonMiddleware") for name in middleware
        )

    def routes(self, entries: Iterable[Any], below: _Below) -> list[RouteInfo]:
        found: list[RouteInfo] = []
        for entry in entries:
            for template, pattern, exact in self.patterns(entry.pattern):
                nested = _attribute(entry, "url_patterns")
                if nested is not None:
                    place = replace(below.mounted(template, pattern), exact=below.exact and exact)
                    found += self.routes(nested, place)
                    continue
                whole = below.pattern + pattern
                found.append(
                    below.route(
                        template,
                        pattern,
                        kind=self.kind,
                        methods=None
                        if self.kind == "websocket"
                        else _django_methods(entry.callback),
                        redirects_slash=self.appends_slash and whole.endswith(("/$", r"/\Z")),
                        exact=exact,
                        endpoint=entry.callback,
                    )
                )
        return found

    def patterns(self, pattern: Any) -> list[tuple[str, str, bool]]:
        """Give template, expression and exactness of one step, for every language."""
        if _attribute(pattern, "language_prefix") is not None:
            # Which prefix is right depends on the language of the request.
            codes = [code for code, _ in self.settings.LANGUAGES]
            prefixed = f"(?:{'|'.join(re.escape(code) for code in codes)})/"
            both = [("<language>/", prefixed, False)]
            return both if pattern.prefix_default_language else [*both, ("", "", False)]
        text = _attribute(pattern, "_route")
        if text is None:
            text = _attribute(pattern, "_regex")
        converters: Mapping[str, object] = pattern.converters
        exact = all(_is_own(type(converter), "django") for converter in converters.values())
        if isinstance(text, str):
            return [(_django_template(text), _step(pattern), exact)]
        found: dict[str, tuple[str, str, bool]] = {}
        for code, _ in self.settings.LANGUAGES:
            with self.translation.override(code):
                found[str(text)] = (
                    _django_template(str(text)),
                    _step(pattern),
                    False,
                )
        return list(found.values())


def _django_template(text: str) -> str:
    return text.removeprefix("^").removesuffix("$").removesuffix(r"\Z")


def _django_methods(view: Any) -> set[str] | None:
    """Give the handlers of a class-based view; a function takes every method."""
    actions: Mapping[str, str] | None = _attribute(view, "actions")
    if actions:  # a ViewSet of the Django REST framework
        return _without_head(method.upper() for method in actions)
    view_class = _attribute(view, "view_class")
    if view_class is None:
        return None
    names: Iterable[str] = view_class.http_method_names
    methods = {name.upper() for name in names if hasattr(view_class, name)}
    if _is_own(_attribute(view_class, "options"), "django", "rest_framework"):
        methods -= {"OPTIONS"}
    return _without_head(methods) or None


def _step(step: Any) -> str:
    """Write the expression of one step as one that continues where the last step ended.

    Django searches with it, except for whole paths that end in `$`, which have to match wholly.
    """
    pattern: str = step.regex.pattern
    whole = _attribute(step, "_is_endpoint") and pattern.endswith("$")
    flags = re.match(r"\(\?([aiLmsux]+)\)", pattern)
    body = pattern[flags.end() :] if flags else pattern
    alternatives = [
        branch.removeprefix("^").removeprefix(r"\A")
        if whole or branch.startswith(("^", r"\A"))
        else f"(?s:.*?){branch}"
        for branch in _branches(body)
    ]
    body = alternatives[0] if len(alternatives) == 1 else f"(?:{'|'.join(alternatives)})"
    # ASCII and locale are Python's alone.
    kept = re.sub("[aLu]", "", flags[1]) if flags else ""
    return _anonymous(f"(?{kept}:{body})" if kept else body)


def _branches(pattern: str) -> list[str]:
    """Split an expression at the bars that are in no group and no class."""
    branches = [""]
    depth = 0
    for part in _pieces(pattern):
        depth += {"(": 1, ")": -1}.get(part, 0)
        if part == "|" and depth == 0:
            branches.append("")
        else:
            branches[-1] += part
    return branches


# Helpers ------------------------------------------------------------------------------------------

_READERS: tuple[Callable[[object, _Below, _Seen], Iterable[RouteInfo] | None], ...] = (
    _starlette,
    _werkzeug,
    _django,
)


def _attribute(target: object, name: str) -> Any:
    """Get an attribute of an object that may do anything when it is asked."""
    try:
        return getattr(target, name, None)
    except Exception:  # noqa: BLE001 - the object is not ours
        return None


def _inner(regex: re.Pattern[str]) -> str:
    return _anonymous(regex.pattern).removeprefix("^")


def _anonymous(pattern: str) -> str:
    """Take the names from groups, unless the expression refers to them."""
    if re.search(r"\(\?P=|\(\?\(|\\[1-9]", pattern):
        return pattern
    return re.sub(r"((?<!\\)(?:\\\\)*)\(\?P<\w+>", r"\1(?:", pattern)


def _pieces(pattern: str) -> list[str]:
    """Split an expression into escapes, classes and single characters."""
    return re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", pattern, re.DOTALL)


def _within_segment(pattern: str) -> tuple[str, bool]:
    """Keep an expression from matching a slash; False where it still may."""
    pieces = _pieces(pattern)
    kept = ["[^/]" if piece == "." else re.sub(r"^\[\^(?!/)", "[^/", piece) for piece in pieces]
    return "".join(kept), not {"/", r"\/", r"\D", r"\W", r"\S"} & set(pieces)


def _without_head(methods: Iterable[str]) -> set[str]:
    """Leave HEAD out where it follows GET."""
    found = {method.upper() for method in methods}
    return found - {"HEAD"} if "GET" in found else found


def _is_own(function: object, *packages: str) -> bool:
    """Whether a function or class belongs to one of these packages."""
    module = _attribute(function, "__module__")
    return isinstance(module, str) and module.partition(".")[0] in packages


def _source(endpoint: Any) -> tuple[str | None, str | None, int | None]:
    """Name a view and the place where it is written."""
    if endpoint is None or isinstance(endpoint, str):
        return endpoint, None, None
    while isinstance(endpoint, functools.partial):
        endpoint = cast("functools.partial[Any]", endpoint).func
    endpoint = _attribute(endpoint, "view_class") or endpoint
    if not isinstance(endpoint, type):
        try:
            endpoint = inspect.unwrap(endpoint)
        except ValueError:  # a circle of wrappers
            return _type_name(endpoint), None, None
        if _attribute(endpoint, "__qualname__") is None:
            endpoint = cast("type[Any]", type(endpoint))
    name = f"{endpoint.__module__}.{endpoint.__qualname__}"
    code = _attribute(endpoint, "__code__")
    if code is not None:
        return name, code.co_filename, code.co_firstlineno
    module = sys.modules.get(endpoint.__module__)
    # Python 3.13 knows where a class begins; to find it elsewhere means to parse its file.
    return name, _attribute(module, "__file__"), vars(endpoint).get("__firstlineno__")


def _type_name(target: object) -> str:
    return f"{type(target).__module__}.{type(target).__qualname__}"


def _describe(target: object) -> str:
    name = _attribute(target, "__qualname__")
    if isinstance(name, str):
        return f"`{_attribute(target, '__module__')}.{name}`, a {type(target).__qualname__},"
    return f"this `{_type_name(target)}` object"
