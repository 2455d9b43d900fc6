"""BlackSheep: handlers by decorator, what they need by type."""

from collections.abc import AsyncIterator

from blacksheep import (
    Application,
    ContentDispositionType,
    Request,
    Response,
    Router,
    StreamedContent,
    WebSocket,
    file,
    html,
    json,
    text,
)
from blacksheep.server.routing import URLResolver

from . import shop

# A router of its own: the default one belongs to whatever application comes first.
router = Router()
app = Application(router=router)
app.use_sessions("tests")
opening = {"state": "not open"}


@app.on_start
async def start(application: Application) -> None:
    opening["state"] = "open"


@app.on_stop
async def stop(application: Application) -> None:
    shop.journal("BlackSheep is closed")


@router.get("/teas/{name}")
async def tea(name: str, urls: URLResolver, q: str = "") -> Response:
    # An empty parameter counts as a missing one.
    return html(shop.tea(name, q, urls.url_for("order")))


@router.post("/order", name="order")
async def order(request: Request, urls: URLResolver) -> Response:
    form = await request.form()
    request.session["ordered"] = form["tea"]
    return Response(303, [(b"location", urls.url_for("thanks").encode())])


@router.get("/thanks", name="thanks")
async def thanks(request: Request) -> Response:
    return text(request.session["ordered"])


@router.post("/upload")
async def upload(request: Request) -> Response:
    form = await request.form()
    (picture,) = form["picture"]
    receipt = shop.receipt(picture.file_name.decode(), picture.data, form["note"])
    return json(receipt)


@router.get("/picture")
async def picture() -> Response:
    return file(
        shop.PICTURE.read_bytes(), "image/png", content_disposition=ContentDispositionType.INLINE
    )


@router.get("/leaves")
async def leaves() -> Response:
    async def lines() -> AsyncIterator[bytes]:
        for line in shop.leaves():
            yield line

    return Response(200, content=StreamedContent(b"text/plain", lines))


@router.get("/opened")
async def opened() -> Response:
    return text(opening["state"])


@router.ws("/tasting/{tea}")
async def tasting(websocket: WebSocket, tea: str, q: str) -> None:
    await websocket.accept()
    await websocket.send_text(shop.welcome(tea, q))
    while (data := await websocket.receive_text()) != "bye":
        await websocket.send_text(data.upper())
    await websocket.close(4001, "süß ☕")
