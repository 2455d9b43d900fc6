"""Falcon's ASGI side: the same resources, awaited."""

from collections.abc import AsyncIterator

import aiofiles
import falcon
import falcon.asgi

from . import shop


class Opening:
    async def process_startup(self, scope: object, event: object) -> None:
        Opened.state = "open"

    async def process_shutdown(self, scope: object, event: object) -> None:
        shop.journal("Falcon is closed")


class Tea:
    async def on_get(self, request, response, name: str) -> None:
        response.content_type = falcon.MEDIA_HTML
        response.text = shop.tea(
            name, request.get_param("q", required=True), f"{request.prefix}/order"
        )


class Order:
    async def on_post(self, request, response) -> None:
        ordered = (await request.get_media())["tea"]
        response.set_cookie("ordered", ordered.encode().hex(), secure=False)
        raise falcon.HTTPSeeOther(f"{request.prefix}/thanks")


class Thanks:
    async def on_get(self, request, response) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.text = bytes.fromhex(request.cookies["ordered"]).decode()


class Upload:
    async def on_post(self, request, response) -> None:
        filename, content, note = "", b"", ""
        async for part in await request.get_media():
            if part.name == "picture":
                filename, content = part.filename, await part.stream.read()
            else:
                note = await part.get_text()
        response.media = shop.receipt(filename, content, note)


class Picture:
    async def on_get(self, request, response) -> None:
        response.content_type = falcon.MEDIA_PNG
        response.set_stream(await aiofiles.open(shop.PICTURE, "rb"), shop.PICTURE.stat().st_size)


class Leaves:
    async def on_get(self, request, response) -> None:
        async def lines() -> AsyncIterator[bytes]:
            for line in shop.leaves():
                yield line

        response.content_type = falcon.MEDIA_TEXT
        response.stream = lines()


class Opened:
    state = "not open"

    async def on_get(self, request, response) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.text = self.state


class Tasting:
    async def on_websocket(self, request, socket, tea: str) -> None:
        await socket.accept()
        await socket.send_text(shop.welcome(tea, request.get_param("q", required=True)))
        while (data := await socket.receive_text()) != "bye":
            await socket.send_text(data.upper())
        await socket.close(4001, "süß ☕")


app = falcon.asgi.App(middleware=[Opening()])
app.add_route("/teas/{name}", Tea())
app.add_route("/order", Order())
app.add_route("/thanks", Thanks())
app.add_route("/upload", Upload())
app.add_route("/picture", Picture())
app.add_route("/leaves", Leaves())
app.add_route("/opened", Opened())
app.add_route("/tasting/{tea}", Tasting())
