"""Starlette: what its documentation shows, page by page, in one shop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from . import shop


async def tea(request: Request) -> HTMLResponse:
    name, query = request.path_params["name"], request.query_params["q"]
    return HTMLResponse(shop.tea(name, query, str(request.url_for("order"))))


class Order(HTTPEndpoint):
    async def post(self, request: Request) -> RedirectResponse:
        async with request.form() as form:
            request.session["ordered"] = form["tea"]
        return RedirectResponse(request.url_for("thanks"), 303)


async def thanks(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.session["ordered"])


async def upload(request: Request) -> JSONResponse:
    async with request.form() as form:
        picture = form["picture"]
        content = await picture.read()
        return JSONResponse(shop.receipt(picture.filename, content, form["note"]))


async def picture(request: Request) -> FileResponse:
    return FileResponse(shop.PICTURE, media_type="image/png")


async def leaves(request: Request) -> StreamingResponse:
    return StreamingResponse(shop.leaves(), media_type="text/plain")


async def opened(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.state.opened)


class Tasting(WebSocketEndpoint):
    encoding = "text"

    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(shop.welcome(**websocket.path_params, **websocket.query_params))

    async def on_receive(self, websocket: WebSocket, data: str) -> None:
        if data == "bye":
            await websocket.close(4001, "süß ☕")
        else:
            await websocket.send_text(data.upper())


async def samples(websocket: WebSocket) -> None:
    await websocket.accept()
    async for data in websocket.iter_bytes():
        await websocket.send_bytes(data[::-1])
    shop.journal("samples are over")


async def members(websocket: WebSocket) -> None:
    if websocket.query_params.get("card") != "gold":
        answer = JSONResponse({"need": "a card"}, 402, headers={"x-club": "tea"})
        await websocket.send_denial_response(answer)
        return
    chosen = websocket.scope["subprotocols"][-1]
    await websocket.accept(chosen, headers=[(b"set-cookie", b"member=yes")])
    await websocket.send_json({"subprotocol": chosen})
    await websocket.close()


async def closed(websocket: WebSocket) -> None:
    await websocket.close()


async def brew(request: Request) -> PlainTextResponse:
    """Answers before the tea is ready; `ready` lets it be."""
    request.state.brewing.clear()

    async def wait() -> None:
        await request.state.brewing.wait()
        request.state.brewed.set()

    return PlainTextResponse("soon", background=BackgroundTask(wait))


async def ready(request: Request) -> PlainTextResponse:
    request.state.brewing.set()
    await request.state.brewed.wait()
    return PlainTextResponse("brewed")


async def drop(request: Request) -> PlainTextResponse:
    raise HTTPException(418, "a teapot", headers={"x-handle": "left"})


async def spill(request: Request) -> PlainTextResponse:
    raise RuntimeError("all over the table")


async def endless(request: Request) -> StreamingResponse:
    """Streams until the client has gone."""

    async def drops() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"drop\n"
                await asyncio.sleep(0.01)
        finally:
            shop.journal("the tap is closed")

    return StreamingResponse(drops(), media_type="text/plain")


async def label(request: Request) -> JSONResponse:
    return JSONResponse(
        {
            "url": str(request.url),
            "root_path": request.scope["root_path"],
            "link": str(request.url_for("cellar:label", number=8)),
            "number": request.path_params["number"],
        }
    )


async def long(request: Request) -> PlainTextResponse:
    return PlainTextResponse("tea " * 10_000)


async def count(request: Request) -> JSONResponse:
    """Counts what comes, without holding it."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return JSONResponse({"size": size, "content-length": request.headers.get("content-length")})


class Label(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-served-by"] = "starlette"
        return response


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
    yield {"opened": "open", "brewing": asyncio.Event(), "brewed": asyncio.Event()}
    shop.journal("Starlette is closed")


def no_tea(request: Request, error: Exception) -> Response:
    return HTMLResponse("<h1>No such tea</h1>", 404)


def broken(request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"sorry: {error}", 500)


app = Starlette(
    routes=[
        Route("/teas/{name}", tea),
        Route("/order", Order, name="order"),
        Route("/thanks", thanks),
        Route("/upload", upload, methods=["POST"]),
        Route("/picture", picture),
        Route("/leaves", leaves),
        Route("/opened", opened),
        Route("/brew", brew, methods=["POST"]),
        Route("/ready", ready, methods=["POST"]),
        Route("/drop", drop),
        Route("/spill", spill),
        Route("/endless", endless),
        Route("/long", long),
        Route("/count", count, methods=["POST"]),
        Route("/shelves/", label),
        WebSocketRoute("/tasting/{tea}", Tasting),
        WebSocketRoute("/samples", samples),
        WebSocketRoute("/members", members),
        WebSocketRoute("/closed", closed),
        Mount("/static", StaticFiles(directory=Path(shop.PICTURE).parent)),
        Mount("/cellar", routes=[Route("/{number:int}", label, name="label")], name="cellar"),
    ],
    middleware=[
        Middleware(Label),
        Middleware(SessionMiddleware, secret_key="tests", same_site="strict"),
        Middleware(CORSMiddleware, allow_origins=["https://tea.example"], allow_methods=["PUT"]),
        Middleware(GZipMiddleware, minimum_size=10_000),
    ],
    exception_handlers={404: no_tea, Exception: broken},
    lifespan=lifespan,
)
