"""The pages of the shop in FastAPI: what `shop_legacy` was, view by view, from the same templates.

Nothing here decides when a page moves; the server does. Until the last one has, both applications
read and write one session, so that a login or a message is at home in both.
"""

import csv
import io
import secrets
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import shop_store as store
from fastapi import Depends, FastAPI, Form, Query, Request, UploadFile
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from starlette.exceptions import HTTPException
from twinspan.migrate import FlaskSessionMiddleware

HERE = Path(__file__).parent
LARGEST_FORM = 4 * 1024 * 1024
PICTURE_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif"}

templates = Jinja2Templates(HERE / "templates")
# The pages have no use for a schema, and its paths would hide the shop's own.
app = FastAPI(title="Kettle & Leaf", openapi_url=None)
app.add_middleware(FlaskSessionMiddleware, secret_key=store.secret_key(), samesite="Lax")
static = StaticFiles(directory=HERE / "static")


class LoginRequiredError(Exception):
    """Whoever asked has to log in first."""


def flash(request: Request, message: str, category: str) -> None:
    """Keeps a message for the next page, where Flask looks for it too."""
    request.session["_flashes"] = [*request.session.get("_flashes", []), (category, message)]


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    session = request.session
    user = session.get("user")
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(16)
    flashes = session.pop("_flashes") if "_flashes" in session else []
    known = {
        "user": user,
        "staff": user is not None and store.is_staff(user),
        "csrf": session["csrf"],
        "flashes": flashes,
        "answered_by": "FastAPI",
    }
    return templates.TemplateResponse(request, template, {**known, **values}, status)


def whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def redirect(path: str) -> RedirectResponse:
    return RedirectResponse(path, 302)


def user(request: Request) -> str:
    if "user" not in request.session:
        raise LoginRequiredError
    return request.session["user"]


User = Annotated[str, Depends(user)]


def staff(name: User) -> str:
    if not store.is_staff(name):
        raise HTTPException(403, "This page is for the people who work here.")
    return name


def known_product(product_id: int) -> store.Product:
    product = store.product(product_id)
    if product is None:
        raise HTTPException(404)
    return product


Product = Annotated[store.Product, Depends(known_product)]


@app.middleware("http")
async def limit_forms(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    if int(request.headers.get("content-length", 0)) > LARGEST_FORM:
        return Response("The form is too large.\n", 413)
    return await call_next(request)


async def form_token(request: Request) -> None:
    """A form must bring the token of the session that it was made for."""
    form = await request.form()
    expected, brought = request.session.get("csrf"), form.get("csrf", "")
    if (
        not expected
        or not isinstance(brought, str)
        or not secrets.compare_digest(expected.encode(), brought.encode())
    ):
        raise HTTPException(
            400, "This form is too old. Go back, load the page again and send it once more."
        )


# Flask's `before_request` did this for every form; here each route that takes one says so.
FORM = [Depends(form_token)]


# HEAD too, everywhere: Flask answered it for every GET, FastAPI does only when told.
@app.api_route("/", methods=["GET", "HEAD"])
def product_list(request: Request) -> HTMLResponse:
    return page(request, "products.html", products=store.products())


@app.api_route("/products/{product_id:int}", methods=["GET", "HEAD"])
def product_page(request: Request, product: Product) -> HTMLResponse:
    return page(request, "product.html", product=product)


@app.post("/products/{product_id:int}/picture", dependencies=[Depends(staff), *FORM])
async def upload_picture(request: Request, product: Product, picture: UploadFile) -> Response:
    content = await picture.read()
    kind = next((kind for start, kind in PICTURE_KINDS.items() if content.startswith(start)), None)
    if kind is None:
        flash(request, "That is not a PNG, JPEG or GIF picture.", "warning")
    else:
        name = f"{product.id}-{secrets.token_hex(8)}.{kind}"
        (store.pictures() / name).write_bytes(content)
        store.set_picture(product.id, name)
        flash(request, f"{product.name} has a new picture.", "success")
    return redirect(f"/products/{product.id}")


@app.api_route("/pictures/{name}", methods=["GET", "HEAD"])
def picture(name: str) -> Response:
    path = store.pictures() / name
    if path.parent != store.pictures() or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, headers={"cache-control": "public, max-age=3600"})


# A route and no mount, as it was one in Flask: so it counts as moved.
@app.api_route("/static/{name:path}", methods=["GET", "HEAD"])
async def static_file(request: Request, name: str) -> Response:
    return await static.get_response(name, request.scope)


@app.api_route("/orders", methods=["GET", "HEAD"])
def order_list(request: Request, name: User) -> HTMLResponse:
    return page(request, "orders.html", orders=store.orders(customer=name))


@app.post("/orders", dependencies=FORM)
def place_order(
    request: Request,
    name: User,
    product_id: Annotated[str, Form()] = "",
    quantity: Annotated[str, Form()] = "",
) -> Response:
    # Not `int`: FastAPI would answer what is no number with 422 and JSON, Flask took it for none.
    product = known_product(whole(product_id))
    bags = whole(quantity)
    if not 1 <= bags <= store.MOST_PER_ORDER:
        flash(request, f"Order between 1 and {store.MOST_PER_ORDER} bags.", "warning")
        return redirect(f"/products/{product.id}")
    order = store.place_order(product.id, bags, name)
    flash(request, f"Thank you! Order {order.id} is on its way to the kitchen.", "success")
    return redirect("/orders")


@app.post("/orders/{order_id:int}", dependencies=FORM)
def cancel_order(request: Request, order_id: int, name: User) -> Response:
    order = store.order(order_id)
    if order is None or not (order.customer == name or store.is_staff(name)):
        raise HTTPException(404)
    try:
        store.set_status(order.id, "cancelled")
        flash(request, f"Order {order.id} is cancelled.", "success")
    except store.ConflictError as conflict:
        flash(request, f"Too late: {conflict}.", "warning")
    return redirect("/orders")


@app.api_route("/orders.csv", methods=["GET", "HEAD"], dependencies=[Depends(staff)])
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

    attachment = {"content-disposition": 'attachment; filename="orders.csv"'}
    return StreamingResponse(lines(), media_type="text/csv", headers=attachment)


@app.api_route("/board", methods=["GET", "HEAD"], dependencies=[Depends(staff)])
def board(request: Request) -> HTMLResponse:
    return page(request, "board.html")


@app.api_route("/login", methods=["GET", "HEAD"])
def login_form(request: Request) -> HTMLResponse:
    return page(request, "login.html", users=store.USERS)


@app.post("/login", dependencies=FORM)
def login(
    request: Request,
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    wanted: Annotated[str, Query(alias="next")] = "/",
) -> Response:
    if not store.check_password(name, password):
        flash(request, "Wrong name or password.", "warning")
        return page(request, "login.html", users=store.USERS)
    # A new session and token: what was known before the login is worth nothing after it.
    request.session.clear()
    request.session["user"] = name
    request.session["csrf"] = secrets.token_urlsafe(16)
    flash(request, f"Welcome, {name}.", "success")
    # Only a path of this site; browsers read `//host` and `/\\host` as another one.
    local = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    return redirect(wanted if local else "/")


@app.post("/logout", dependencies=FORM)
def logout(request: Request) -> Response:
    request.session.clear()
    flash(request, "Good bye.", "success")
    return redirect("/")


@app.exception_handler(LoginRequiredError)
def ask_to_log_in(request: Request, _: Exception) -> Response:
    flash(request, "Please log in first.", "warning")
    return redirect(f"/login?next={quote(request.url.path)}")


@app.exception_handler(HTTPException)
def error_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    shown = {
        "code": error.status_code,
        "name": HTTPStatus(error.status_code).phrase,
        "description": error.detail,
    }
    response = page(request, "error.html", error.status_code, error=shown)
    response.headers.update(error.headers or {})
    return response
