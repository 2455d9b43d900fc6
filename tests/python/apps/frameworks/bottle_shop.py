"""Bottle: routes by decorator, a signed cookie. It serves files of a directory."""

from bottle import Bottle, redirect, request, response, static_file

from . import shop

app = Bottle()
SECRET = "tests"


@app.get("/teas/<name>")
def tea(name):
    return shop.tea(name, request.query.q, request.script_name + "order")


@app.post("/order")
def order():
    response.set_cookie("ordered", request.forms.tea, secret=SECRET)
    redirect(request.script_name + "thanks", 303)


@app.get("/thanks")
def thanks():
    return request.get_cookie("ordered", secret=SECRET)


@app.post("/upload")
def upload():
    picture = request.files.picture
    return shop.receipt(picture.raw_filename, picture.file.read(), request.forms.note)


@app.get("/picture")
def picture():
    return static_file(shop.PICTURE.name, root=str(shop.PICTURE.parent), mimetype="image/png")


@app.get("/leaves")
def leaves():
    response.content_type = "text/plain"
    return shop.leaves()
