"""Falcon: resources; its own multipart parser hands out the parts one after the other."""

import falcon

from . import shop


class Tea:
    def on_get(self, request: falcon.Request, response: falcon.Response, name: str) -> None:
        response.content_type = falcon.MEDIA_HTML
        response.text = shop.tea(
            name, request.get_param("q", required=True), f"{request.prefix}/order"
        )


class Order:
    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        ordered = request.get_media()["tea"]
        response.set_cookie("ordered", ordered.encode().hex(), secure=False)
        raise falcon.HTTPSeeOther(f"{request.prefix}/thanks")


class Thanks:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.text = bytes.fromhex(request.cookies["ordered"]).decode()


class Upload:
    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        filename, content, note = "", b"", ""
        for part in request.get_media():
            if part.name == "picture":
                filename, content = part.filename, part.stream.read()
            else:
                note = part.get_text()
        response.media = shop.receipt(filename, content, note)


class Picture:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = falcon.MEDIA_PNG
        response.set_stream(shop.PICTURE.open("rb"), shop.PICTURE.stat().st_size)


class Leaves:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.stream = shop.leaves()


app = falcon.App()
app.add_route("/teas/{name}", Tea())
app.add_route("/order", Order())
app.add_route("/thanks", Thanks())
app.add_route("/upload", Upload())
app.add_route("/picture", Picture())
app.add_route("/leaves", Leaves())
