"""Pyramid: a configurator, views by name, a session in a signed cookie."""

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPSeeOther
from pyramid.request import Request
from pyramid.response import FileResponse, Response
from pyramid.session import SignedCookieSessionFactory

from . import shop


def tea(request: Request) -> Response:
    name = request.matchdict["name"]
    return Response(shop.tea(name, request.GET["q"], request.route_path("order")))


def order(request: Request) -> Response:
    request.session["ordered"] = request.POST["tea"]
    return HTTPSeeOther(request.route_url("thanks"))


def thanks(request: Request) -> Response:
    return Response(request.session["ordered"])


def upload(request: Request) -> dict[str, str | int]:
    picture = request.POST["picture"]
    return shop.receipt(picture.filename, picture.file.read(), request.POST["note"])


def picture(request: Request) -> Response:
    return FileResponse(str(shop.PICTURE), request, content_type="image/png")


def leaves(request: Request) -> Response:
    return Response(app_iter=shop.leaves(), content_type="text/plain")


def main():
    with Configurator(session_factory=SignedCookieSessionFactory("tests")) as config:
        for view, pattern, method in (
            (tea, "/teas/{name}", "GET"),
            (order, "/order", "POST"),
            (thanks, "/thanks", "GET"),
            (upload, "/upload", "POST"),
            (picture, "/picture", "GET"),
            (leaves, "/leaves", "GET"),
        ):
            config.add_route(view.__name__, pattern, request_method=method)
            renderer = "json" if view is upload else None
            config.add_view(view, route_name=view.__name__, renderer=renderer)
        return config.make_wsgi_app()
