"""The new application, in FastAPI: a JSON API, what is live of orders, the first page that moved.

It owns exactly the routes below. Everything else is still answered by `shop_legacy`.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import anyio.to_thread
import shop_store as store
from fastapi import (
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection
from twinspan.migrate import FlaskSessionMiddleware

templates = Jinja2Templates(Path(__file__).parent / "templates")

Status = Literal["new", "packed", "shipped", "delivered", "cancelled"]


class Board:
    """Knows when an order has changed, whoever changed it.

    An order may come in through Flask or through this application, and in another worker process
    than the one that holds the WebSocket, so that no signal inside Python reaches every board.
    SQLite is asked instead: `PRAGMA data_version` changes when another connection has committed,
    and reading it costs microseconds. Each board remembers how far it has read (`change`) and
    fetches what came after; a slow one only falls behind.
    """

    POLL_SECONDS = 0.2

    def __init__(self, connection: sqlite3.Connection) -> None:
        # This connection never writes: its own commits would not move data_version.
        self.connection = connection
        self.change = store.latest_change(connection)
        self.moved = asyncio.Condition()

    async def watch(self) -> None:
        seen = None
        while True:
            version = self.connection.execute("PRAGMA data_version").fetchone()[0]
            if version != seen:
                seen = version
                async with self.moved:
                    self.change = store.latest_change(self.connection)
                    self.moved.notify_all()
            await asyncio.sleep(self.POLL_SECONDS)

    async def wait_beyond(self, change: int) -> None:
        async with self.moved:
            await self.moved.wait_for(lambda: self.change > change)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
    with closing(store.connect()) as connection:
        board = Board(connection)
        watcher = asyncio.create_task(board.watch())
        try:
            yield {"board": board}
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


app = FastAPI(title="Kettle & Leaf", version="1.0", lifespan=lifespan)
# A login must not end where a route has moved: the session is Flask's own, in Flask's cookie.
app.add_middleware(FlaskSessionMiddleware, secret_key=store.secret_key(), samesite="Lax")


def session(connection: HTTPConnection) -> Mapping[str, Any]:
    return connection.session


Session = Annotated[Mapping[str, Any], Depends(session)]


def user(values: Session) -> str:
    """Who is logged in. Flask's `login_required` does not guard what has moved here: this does."""
    if "user" not in values:
        raise HTTPException(401, "log in at /login first")
    return values["user"]


User = Annotated[str, Depends(user)]


def staff(name: User) -> str:
    if not store.is_staff(name):
        raise HTTPException(403, "only for the people who work here")
    return name


def own_order(order_id: int, name: User) -> store.Order:
    order = store.order(order_id)
    if order is None or not (order.customer == name or store.is_staff(name)):
        raise HTTPException(404, "no such order")
    return order


class ProductOut(BaseModel):
    id: int
    name: str
    origin: str
    note: str
    cents: int
    picture: str | None


class OrderOut(BaseModel):
    id: int
    product_id: int
    product: str
    quantity: int
    customer: str
    status: Status
    placed: str
    cents: int


class OrderIn(BaseModel):
    product_id: int
    quantity: int = Field(ge=1, le=store.MOST_PER_ORDER)


class OrderChange(BaseModel):
    status: Status


@app.get("/api/products")
def list_products() -> list[ProductOut]:
    return [ProductOut(**asdict(product)) for product in store.products()]


@app.get("/api/products/{product_id}")
def get_product(product_id: int) -> ProductOut:
    product = store.product(product_id)
    if product is None:
        raise HTTPException(404, "no such product")
    return ProductOut(**asdict(product))


@app.get("/api/orders")
def list_orders(
    name: User, status: Status | None = None, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> list[OrderOut]:
    customer = None if store.is_staff(name) else name
    return [order_out(order) for order in store.orders(customer, status, limit)]


@app.post("/api/orders", status_code=201)
def place_order(wanted: OrderIn, customer: User, response: Response) -> OrderOut:
    if store.product(wanted.product_id) is None:
        raise HTTPException(404, "no such product")
    order = store.place_order(wanted.product_id, wanted.quantity, customer)
    response.headers["location"] = f"/api/orders/{order.id}"
    return order_out(order)


@app.get("/api/orders/{order_id}")
def get_order(order: Annotated[store.Order, Depends(own_order)]) -> OrderOut:
    return order_out(order)


@app.patch("/api/orders/{order_id}", dependencies=[Depends(staff)])
def change_order(
    change: OrderChange, order: Annotated[store.Order, Depends(own_order)]
) -> OrderOut:
    try:
        return order_out(store.set_status(order.id, change.status))
    except store.ConflictError as conflict:
        raise HTTPException(409, str(conflict)) from conflict


@app.get(
    "/api/orders/{order_id}/events",
    response_class=EventSourceResponse,
    dependencies=[Depends(own_order)],
)
async def order_events(
    order_id: int, request: Request, last_event_id: Annotated[int, Header()] = 0
) -> AsyncIterator[ServerSentEvent]:
    """The status of an order, now and whenever it changes, until it can no longer change.

    The id of an event is the change that it tells of. A browser that connects again says which one
    it heard last, whichever worker it comes to, and is told only what is newer.
    """
    board: Board = request.state.board
    # The head goes out with the first that is said, and the page shall not wait for the first news.
    yield ServerSentEvent(comment="connected", retry=1000)
    while True:
        # Before the order is read, not after: a change in between is read twice, never lost.
        change = board.change
        order = await anyio.to_thread.run_sync(store.order, order_id)
        if order is None:
            return
        if order.change > last_event_id:
            last_event_id = order.change
            news = {"status": order.status, "next": order.next_statuses}
            yield ServerSentEvent(data=news, id=str(order.change))
        if not order.next_statuses:
            return
        await board.wait_beyond(change)


# HEAD too: Flask answered it for every GET, FastAPI does only when told.
@app.api_route("/orders/{order_id:int}", methods=["GET", "HEAD"], response_class=HTMLResponse)
def order_page(request: Request, order_id: int, values: Session) -> Response:
    """What `shop_legacy.order_page` was, from the same template; its form still posts to Flask."""
    if "user" not in values:
        return RedirectResponse(f"/login?next=/orders/{order_id}", 302)
    name = values["user"]
    page: dict[str, Any] = {
        "user": name,
        "staff": store.is_staff(name),
        "csrf": values.get("csrf"),
        "flashes": [],
        "answered_by": "FastAPI",
    }
    try:
        page["order"] = own_order(order_id, name)
    except HTTPException as error:
        page["error"] = {
            "code": error.status_code,
            "name": "Not found",
            "description": error.detail,
        }
        return templates.TemplateResponse(request, "error.html", page, error.status_code)
    return templates.TemplateResponse(request, "order.html", page)


@app.websocket("/ws/orders")
async def order_board(websocket: WebSocket) -> None:
    """Sends every open order once, then each one that is placed or changes, as soon as it does."""
    if not await anyio.to_thread.run_sync(store.is_staff, websocket.session.get("user", "")):
        # Before the accept: the handshake is answered with 403.
        await websocket.close()
        return
    await websocket.accept()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send_changes, websocket)
        # A board has nothing to say; reading tells when it has gone, also while no order moves.
        async for _ in websocket.iter_text():
            pass
        tasks.cancel_scope.cancel()


async def send_changes(websocket: WebSocket) -> None:
    board: Board = websocket.state.board
    # Before the snapshot, not after: an order that comes in between is sent twice, never lost.
    change = board.change
    try:
        orders = await anyio.to_thread.run_sync(store.open_orders)
        await websocket.send_json(
            {"type": "snapshot", "orders": [order_json(order) for order in orders]}
        )
        while True:
            await board.wait_beyond(change)
            for order in await anyio.to_thread.run_sync(store.orders_changed_after, change):
                await websocket.send_json({"type": "order", "order": order_json(order)})
                change = order.change
    except WebSocketDisconnect:
        pass


def order_out(order: store.Order) -> OrderOut:
    return OrderOut(**asdict(order))


def order_json(order: store.Order) -> dict[str, Any]:
    return order_out(order).model_dump(mode="json")
