"""A FastAPI application that hands parts of its paths to WSGI, through every kind of bridge.

What is behind the bridges tells what it was called with. Under `/legacy` the outer application has
routes of its own, before the mount and after it.
"""

from __future__ import annotations

import json
import threading
import warnings
from typing import TYPE_CHECKING, Any

import a2wsgi
from asgiref.wsgi import WsgiToAsgi
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Host, Mount, Route

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.middleware.wsgi import WSGIMiddleware as StarletteWsgi

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from starlette.types import ASGIApp, Receive, Scope, Send

# Its types say less than it takes.
A2Wsgi: Any = a2wsgi.WSGIMiddleware

TOLD = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "HTTP_COOKIE")


def tell(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Tells what it was called with; `stream` in blocks, `cookies` with two cookies."""
    told: dict[str, Any] = {name: environ[name] for name in TOLD if name in environ}
    told["body"] = environ["wsgi.input"].read().decode()
    headers = [
        ("content-type", "application/json"),
        ("x-thread", threading.current_thread().name),
    ]
    if environ["PATH_INFO"].endswith("/cookies"):
        headers += [("set-cookie", "one=1; Path=/"), ("set-cookie", "two=2; HttpOnly")]
    status = "404 Nowhere" if environ["PATH_INFO"].endswith("/nowhere") else "200 OK"
    start_response(status, headers)
    if environ["PATH_INFO"].endswith("/stream"):
        return blocks(told)
    return [json.dumps(told).encode()]


def blocks(told: dict[str, Any]) -> Iterator[bytes]:
    for character in json.dumps(told):
        yield character.encode()


class Subclass(A2Wsgi):
    """A bridge that looks at requests itself."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(scope, receive, send)


class LookAlike:
    """A bridge without any of the usual classes."""

    def __init__(self, legacy: Any) -> None:
        self.legacy = legacy
        self.limit = 10

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await StarletteWsgi(self.legacy)(scope, receive, send)


class Passing:
    """Middleware that does nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def inner_own(request: Request) -> Response:
    return Response("outer")


app = FastAPI()
app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"], allow_methods=["*"])


@app.middleware("http")
async def audit(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await proceed(request)
    response.headers["x-audited"] = "yes"
    return response


@app.get("/legacy/own")
def own() -> dict[str, str]:
    return {"outer": "own"}


@app.post("/legacy/items/{item}")
def post_item(item: str) -> dict[str, str]:
    return {"outer": item}


@app.websocket("/legacy/ws")
async def ws(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("outer")
    await websocket.close()


app.mount("/legacy", A2Wsgi(tell))


@app.get("/legacy/late")
def late() -> dict[str, str]:
    return {"outer": "late"}


app.mount("/starlette", StarletteWsgi(tell))
app.mount("/asgiref", WsgiToAsgi(tell))
app.mount("/subclass", Subclass(tell))
app.mount("/alike", LookAlike(tell))
app.mount("/wrapped", Passing(A2Wsgi(tell)))
app.mount(
    "/nested",
    Starlette(
        routes=[
            Route("/inner/own", inner_own),
            Mount("/inner", routes=[Mount("/deep", A2Wsgi(tell))]),
        ],
        middleware=[Middleware(Passing)],
    ),
)
app.mount("/tenants/{name}", A2Wsgi(tell))
app.mount("/größe", A2Wsgi(tell))
app.router.routes.append(Host("legacy.example", A2Wsgi(tell)))

shell = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@shell.get("/native/{item}")
def native(item: str) -> dict[str, str]:
    return {"outer": item}


shell.mount("/", A2Wsgi(tell))
