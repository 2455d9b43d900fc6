"""The shop as views of Uliweb, which finds `request`, `redirect` and `json` by itself."""

from frameworks import shop
from uliweb import expose, json, redirect, request, url_for
from werkzeug.utils import send_file
from werkzeug.wrappers import Response


@expose("/teas/<name>")
def tea(name):
    return shop.tea(name, request.GET["q"], url_for(order))


@expose("/order", methods=["POST"])
def order():
    answer = redirect(url_for(thanks), 303)
    answer.set_cookie("ordered", request.POST["tea"])
    return answer


@expose("/thanks")
def thanks():
    return request.cookies["ordered"]


@expose("/upload", methods=["POST"])
def upload():
    picture = request.FILES["picture"]
    return json(shop.receipt(picture.filename, picture.read(), request.POST["note"]))


@expose("/picture")
def picture():
    return send_file(shop.PICTURE, request.environ, mimetype="image/png")


@expose("/leaves")
def leaves():
    return Response(shop.leaves(), mimetype="text/plain")
