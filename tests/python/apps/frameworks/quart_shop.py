"""Quart: Flask's ways, awaited."""

from collections.abc import AsyncIterator

from quart import (
    Quart,
    Response,
    redirect,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
    websocket,
)

from . import shop

app = Quart(__name__)
app.secret_key = "tests"


@app.while_serving
async def serving() -> AsyncIterator[None]:
    app.config["OPENED"] = "open"
    yield
    shop.journal("Quart is closed")


@app.get("/teas/<name>")
async def tea(name: str) -> str:
    return shop.tea(name, request.args["q"], url_for("order"))


@app.post("/order")
async def order():
    session["ordered"] = (await request.form)["tea"]
    return redirect(url_for("thanks"), 303)


@app.get("/thanks")
async def thanks() -> str:
    return session["ordered"]


@app.post("/upload")
async def upload():
    picture = (await request.files)["picture"]
    note = (await request.form)["note"]
    return shop.receipt(picture.filename or "", picture.read(), note)


@app.get("/picture")
async def picture() -> Response:
    return await send_file(shop.PICTURE, mimetype="image/png", conditional=True)


@app.get("/leaves")
async def leaves() -> Response:
    @stream_with_context
    async def lines() -> AsyncIterator[bytes]:
        for line in shop.leaves():
            yield line

    return Response(lines(), mimetype="text/plain")


@app.get("/opened")
async def opened() -> str:
    return app.config["OPENED"]


@app.websocket("/tasting/<tea>")
async def tasting(tea: str) -> None:
    await websocket.send(shop.welcome(tea, websocket.args["q"]))
    while (data := await websocket.receive()) != "bye":
        await websocket.send(data.upper())
    await websocket.close(4001, "süß ☕")


@app.websocket("/members")
async def members():
    return {"need": "a card"}, 402
