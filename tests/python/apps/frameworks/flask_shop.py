"""Flask: routes by decorator, a session in a signed cookie."""

from flask import Flask, Response, redirect, request, send_file, session, url_for

from . import shop

app = Flask(__name__)
app.secret_key = "tests"


@app.get("/teas/<name>")
def tea(name: str) -> str:
    return shop.tea(name, request.args["q"], url_for("order"))


@app.post("/order")
def order():
    session["ordered"] = request.form["tea"]
    return redirect(url_for("thanks"), 303)


@app.get("/thanks")
def thanks() -> str:
    return session["ordered"]


@app.post("/upload")
def upload():
    picture = request.files["picture"]
    return shop.receipt(picture.filename or "", picture.read(), request.form["note"])


@app.get("/picture")
def picture() -> Response:
    return send_file(shop.PICTURE, mimetype="image/png")


@app.get("/leaves")
def leaves() -> Response:
    return Response(shop.leaves(), mimetype="text/plain")
