"""The shop as actions of py4web; `_default` is the application without a prefix of its own."""

from frameworks import shop
from ombott import static_file
from py4web import URL, Session, action, redirect, request, response

session = Session(secret="0b7f2c9d4e61a8853fd27c1e9ba46053")


@action("teas/<name>")
def tea(name):
    return shop.tea(name, request.query["q"], URL("order"))


@action("order", method="POST")
@action.uses(session)
def order():
    session["ordered"] = request.forms["tea"]
    redirect(URL("thanks"))


@action("thanks")
@action.uses(session)
def thanks():
    return session["ordered"]


@action("upload", method="POST")
def upload():
    picture = request.files["picture"]
    return shop.receipt(picture.raw_filename, picture.file.read(), request.forms["note"])


@action("picture")
def picture():
    return static_file(shop.PICTURE.name, root=str(shop.PICTURE.parent), mimetype="image/png")


@action("leaves")
def leaves():
    response.headers["Content-Type"] = "text/plain"
    return shop.leaves()
