"""The old application: a tea shop in Flask, as it has been for years.

Product pages, orders, pictures and exports are still answered here. What `shop_api` defines is
answered there; `order_page` below is such a route and waits to be deleted.
"""

import csv
import io
import secrets
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import shop_store as store
from flask import (
    Flask,
    abort,
    flash,
    get_flashed_messages,
    redirect,
    render_template,
    request,
    send_from_directory,
    session,
)
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

app = Flask(__name__)
app.secret_key = store.secret_key()
app.config["MAX_CONTENT_LENGTH"] = 4 * 1024 * 1024
# Other sites' forms and WebSockets come without the cookie, so that the JSON API and the board are
# not theirs to use.
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"

# By content, not by file name: the first bytes of the pictures that browsers show.
PICTURE_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif"}


@app.context_processor
def page_values() -> dict[str, Any]:
    user = session.get("user")
    return {
        "user": user,
        "staff": user is not None and store.is_staff(user),
        "csrf": session.setdefault("csrf", secrets.token_urlsafe(16)),
        "flashes": get_flashed_messages(with_categories=True),
        "answered_by": "Flask",
    }


@app.before_request
def check_form_token() -> None:
    """A form must bring the token of the session that it was made for."""
    if request.method == "POST" and request.endpoint:
        expected = session.get("csrf")
        brought = request.form.get("csrf", "")
        if not expected or not secrets.compare_digest(expected.encode(), brought.encode()):
            abort(400, "This form is too old. Go back, load the page again and send it once more.")


def login_required(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def guarded(*args: Any, **values: Any) -> Any:
        if "user" not in session:
            flash("Please log in first.", "warning")
            return redirect(f"/login?next={request.path}")
        return view(*args, **values)

    return guarded


def staff_required(view: Callable[..., Any]) -> Callable[..., Any]:
    @login_required
    @wraps(view)
    def guarded(*args: Any, **values: Any) -> Any:
        if not store.is_staff(session["user"]):
            abort(403, "This page is for the people who work here.")
        return view(*args, **values)

    return guarded


def own_order(order_id: int) -> store.Order:
    order = store.order(order_id)
    if order is None or not (order.customer == session["user"] or store.is_staff(session["user"])):
        abort(404)
    return order


@app.get("/")
def product_list() -> str:
    return render_template("products.html", products=store.products())


@app.get("/products/<int:product_id>")
def product_page(product_id: int) -> str:
    return render_template("product.html", product=store.product(product_id) or abort(404))


@app.post("/products/<int:product_id>/picture")
@staff_required
def upload_picture(product_id: int) -> Response:
    product = store.product(product_id) or abort(404)
    content = request.files["picture"].read() if "picture" in request.files else b""
    kind = next((kind for start, kind in PICTURE_KINDS.items() if content.startswith(start)), None)
    if kind is None:
        flash("That is not a PNG, JPEG or GIF picture.", "warning")
    else:
        # A new name for every picture, so that caches never show the one before.
        name = f"{product.id}-{secrets.token_hex(8)}.{kind}"
        (store.pictures() / name).write_bytes(content)
        store.set_picture(product.id, name)
        flash(f"{product.name} has a new picture.", "success")
    return redirect(f"/products/{product.id}")


@app.get("/pictures/<name>")
def picture(name: str) -> Response:
    return send_from_directory(store.pictures(), name, max_age=3600)


@app.get("/orders")
@login_required
def order_list() -> str:
    return render_template("orders.html", orders=store.orders(customer=session["user"]))


@app.post("/orders")
@login_required
def place_order() -> Response:
    product = store.product(request.form.get("product_id", 0, type=int)) or abort(404)
    quantity = request.form.get("quantity", 0, type=int)
    if not 1 <= quantity <= store.MOST_PER_ORDER:
        flash(f"Order between 1 and {store.MOST_PER_ORDER} bags.", "warning")
        return redirect(f"/products/{product.id}")
    order = store.place_order(product.id, quantity, session["user"])
    flash(f"Thank you! Order {order.id} is on its way to the kitchen.", "success")
    return redirect("/orders")


@app.get("/orders/<int:order_id>")
@login_required
def order_page(order_id: int) -> str:
    """Moved: `shop_api.order_page` answers this path now.

    Delete this view when no traffic comes here any more.
    """
    return render_template("order.html", order=own_order(order_id))


@app.post("/orders/<int:order_id>")
@login_required
def cancel_order(order_id: int) -> Response:
    """Not moved yet: the same path as `order_page`, another method, and still answered here."""
    order = own_order(order_id)
    try:
        store.set_status(order.id, "cancelled")
        flash(f"Order {order.id} is cancelled.", "success")
    except store.ConflictError as conflict:
        flash(f"Too late: {conflict}.", "warning")
    return redirect("/orders")


@app.get("/orders.csv")
@staff_required
def export_orders() -> Response:
    """Every order as CSV, sent line by line: the export never holds the table in memory."""

    def lines() -> Iterator[str]:
        line = io.StringIO()
        writer = csv.writer(line)
        writer.writerow(["order", "placed", "customer", "product", "quantity", "euro", "status"])
        for order in store.every_order():
            of_whom = [order.id, order.placed, order.customer]
            of_what = [order.product, order.quantity, f"{order.cents / 100:.2f}", order.status]
            writer.writerow(of_whom + of_what)
            yield line.getvalue()
            line.seek(0)
            line.truncate()

    return Response(
        lines(),
        mimetype="text/csv",
        headers={"content-disposition": 'attachment; filename="orders.csv"'},
    )


@app.get("/board")
@staff_required
def board() -> str:
    """The page of the live board.

    Its news come from the WebSocket of `shop_api`, its buttons use the API there.
    """
    return render_template("board.html")


@app.route("/login", methods=["GET", "POST"])
def login() -> str | Response:
    if request.method == "POST":
        name = request.form.get("name", "")
        if store.check_password(name, request.form.get("password", "")):
            # A new session and token: what was known before the login is worth nothing after it.
            session.clear()
            session["user"] = name
            session["csrf"] = secrets.token_urlsafe(16)
            flash(f"Welcome, {name}.", "success")
            wanted = request.args.get("next", "/")
            # Only a path of this site; browsers read `//host` and `/\host` as another one.
            local = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
            return redirect(wanted if local else "/")
        flash("Wrong name or password.", "warning")
    return render_template("login.html", users=store.USERS)


@app.post("/logout")
def logout() -> Response:
    session.clear()
    flash("Good bye.", "success")
    return redirect("/")


@app.errorhandler(HTTPException)
def error_page(error: HTTPException) -> tuple[str, int, list[tuple[str, str]]]:
    kept = [
        (name, value)
        for name, value in error.get_headers()
        if name.lower() not in ("content-type", "content-length")
    ]
    return render_template("error.html", error=error), error.code or 500, kept
