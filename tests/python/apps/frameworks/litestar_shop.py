"""Litestar: handlers with types, a session in a store, server-sent events, its own OpenAPI."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from litestar import Litestar, MediaType, Request, WebSocket, get, post, websocket
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.params import Body
from litestar.response import File, Redirect, ServerSentEvent, Stream
from pydantic import BaseModel

from . import shop


class Upload(BaseModel):
    model_config = {"arbitrary_types_allowed": True}

    picture: UploadFile
    note: str


@get("/teas/{name:str}", media_type=MediaType.HTML)
async def tea(request: Request, name: str, q: str) -> str:
    return shop.tea(name, q, request.url_for("order"))


@post("/order", name="order")
async def order(
    request: Request,
    data: Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Redirect:
    request.session["ordered"] = data["tea"]
    return Redirect(request.url_for("thanks"), status_code=303)


@get("/thanks", name="thanks", media_type=MediaType.TEXT)
async def thanks(request: Request) -> str:
    return request.session["ordered"]


@post("/upload", status_code=200)
async def upload(
    data: Annotated[Upload, Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, Any]:
    return shop.receipt(data.picture.filename, await data.picture.read(), data.note)


@get("/picture")
async def picture() -> File:
    return File(shop.PICTURE, media_type="image/png")


@get("/leaves")
async def leaves() -> Stream:
    return Stream(shop.leaves(), media_type="text/plain")


@get("/opened", media_type=MediaType.TEXT)
async def opened(request: Request) -> str:
    return request.app.state.opened


@get("/prices")
async def prices() -> ServerSentEvent:
    async def events() -> AsyncIterator[dict[str, str]]:
        for number in range(1, 6):
            yield {"data": f"{number * 100}", "event": "price", "id": str(number)}

    return ServerSentEvent(events())


@websocket("/tasting/{tea:str}")
async def tasting(socket: WebSocket, tea: str, q: str) -> None:
    await socket.accept()
    await socket.send_text(shop.welcome(tea, q))
    while (data := await socket.receive_text()) != "bye":
        await socket.send_text(data.upper())
    await socket.close(4001, "süß ☕")


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    app.state.opened = "open"
    yield
    shop.journal("Litestar is closed")


app = Litestar(
    [tea, order, thanks, upload, picture, leaves, opened, prices, tasting],
    lifespan=[lifespan],
    middleware=[ServerSideSessionConfig().middleware],
)
