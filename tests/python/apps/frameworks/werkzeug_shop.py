"""Werkzeug alone: a URL map, a request, a response."""

from collections.abc import Callable, Iterable
from typing import Any

from werkzeug import Request, Response
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, MapAdapter, Rule
from werkzeug.utils import redirect, send_file

from . import shop

urls = Map(
    [
        Rule("/teas/<name>", endpoint="tea", methods=["GET"]),
        Rule("/order", endpoint="order", methods=["POST"]),
        Rule("/thanks", endpoint="thanks", methods=["GET"]),
        Rule("/upload", endpoint="upload", methods=["POST"]),
        Rule("/picture", endpoint="picture", methods=["GET"]),
        Rule("/leaves", endpoint="leaves", methods=["GET"]),
    ]
)


def tea(request: Request, adapter: MapAdapter, name: str) -> Response:
    page = shop.tea(name, request.args["q"], adapter.build("order"))
    return Response(page, mimetype="text/html")


def order(request: Request, adapter: MapAdapter) -> Any:
    response = redirect(adapter.build("thanks"), 303)
    response.set_cookie("ordered", request.form["tea"])
    return response


def thanks(request: Request, adapter: MapAdapter) -> Response:
    return Response(request.cookies["ordered"], mimetype="text/plain")


def upload(request: Request, adapter: MapAdapter) -> Response:
    picture = request.files["picture"]
    receipt = shop.receipt(picture.filename or "", picture.read(), request.form["note"])
    return Response(request.json_module.dumps(receipt), mimetype="application/json")


def picture(request: Request, adapter: MapAdapter) -> Response:
    return send_file(shop.PICTURE, request.environ, mimetype="image/png")


def leaves(request: Request, adapter: MapAdapter) -> Response:
    return Response(shop.leaves(), mimetype="text/plain")


views = {view.__name__: view for view in (tea, order, thanks, upload, picture, leaves)}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    request = Request(environ)
    adapter = urls.bind_to_environ(environ)
    try:
        endpoint, arguments = adapter.match()
        response = views[endpoint](request, adapter, **arguments)
    except HTTPException as error:
        response = error
    return response(environ, start_response)
