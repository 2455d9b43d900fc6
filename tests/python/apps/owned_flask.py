"""A Flask application with every kind of rule; every answer is signed, errors included."""

from flask import Blueprint, Flask, Response, request

app = Flask(__name__, static_folder=None)


@app.after_request
def sign(response: Response) -> Response:
    response.headers["x-answered-by"] = "flask"
    return response


def answer(**values: object) -> str:
    return f"{request.method} {request.path} {values}"


def add(rule: str, *methods: str, to: Flask | Blueprint = app) -> None:
    endpoint = f"{rule} {methods}".replace(".", "_")
    to.add_url_rule(rule, endpoint, answer, methods=list(methods))


add("/items", "GET")
add("/items/<int:item_id>", "GET", "DELETE")
add("/old", "GET")
add("/archive/", "GET")
add("/both", "GET")
add("/ws/lobby", "GET")
add("/int/<int:value>", "GET", "PUT")
add("/float/<float:value>", "GET")
add("/uuid/<uuid:value>", "GET")
add("/path/<path:value>", "GET")
add("/text/<value>", "GET")
add("/any/<any(red, green):value>", "GET")
add("/two/<string(length=2):value>", "GET")
add("/words/<word>.<extension>", "GET")

shop = Blueprint("shop", __name__, url_prefix="/shop")
add("/cart/<int:cart_id>", "POST", to=shop)
app.register_blueprint(shop)
