"""web.py: a tuple of patterns and classes, and a module full of what a request is."""

import json

import web

from . import shop

urls = (
    "/teas/(.+)",
    "Tea",
    "/order",
    "Order",
    "/thanks",
    "Thanks",
    "/upload",
    "Upload",
    "/picture",
    "Picture",
    "/leaves",
    "Leaves",
)


class Tea:
    def GET(self, name):
        web.header("Content-Type", "text/html; charset=utf-8")
        return shop.tea(name, web.input().q, web.url("/order"))


class Order:
    def POST(self):
        web.setcookie("ordered", web.input().tea)
        raise web.seeother("/thanks")


class Thanks:
    def GET(self):
        return web.cookies().ordered


class Upload:
    def POST(self):
        form = web.input(picture={})
        web.header("Content-Type", "application/json")
        picture = form.picture
        return json.dumps(shop.receipt(picture.filename, picture.file.read(), form.note))


class Picture:
    def GET(self):
        web.header("Content-Type", "image/png")
        web.header("Content-Length", str(shop.PICTURE.stat().st_size))
        return shop.PICTURE.open("rb")


class Leaves:
    def GET(self):
        web.header("Content-Type", "text/plain")
        return shop.leaves()


app = web.application(urls, globals()).wsgifunc()
