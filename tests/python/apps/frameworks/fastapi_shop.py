"""FastAPI: what its tutorial shows, in one shop."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import (
    APIRouter,
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    UploadFile,
    WebSocket,
    WebSocketException,
    status,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from . import shop


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"opened": "open", "steps": []}
    shop.journal("FastAPI is closed")


app = FastAPI(title="Tea shop", lifespan=lifespan)


@app.get("/teas/{name}", response_class=HTMLResponse)
def tea(name: str, q: str, request: Request) -> str:
    return shop.tea(name, q, str(request.url_for("order")))


@app.post("/order")
async def order(tea: Annotated[str, Form()], request: Request) -> RedirectResponse:
    redirect = RedirectResponse(request.url_for("thanks"), status.HTTP_303_SEE_OTHER)
    redirect.set_cookie("ordered", tea.encode().hex(), path=request.scope["root_path"] or "/")
    return redirect


@app.get("/thanks", response_class=PlainTextResponse)
async def thanks(ordered: Annotated[str, Cookie()]) -> str:
    return bytes.fromhex(ordered).decode()


@app.post("/upload")
async def upload(picture: UploadFile, note: Annotated[str, Form()]) -> dict[str, str | int]:
    return shop.receipt(picture.filename or "", await picture.read(), note)


@app.post("/uploads")
async def uploads(pictures: Annotated[list[bytes], File()]) -> list[int]:
    return [len(picture) for picture in pictures]


@app.get("/picture", response_class=FileResponse)
async def picture() -> FileResponse:
    return FileResponse(shop.PICTURE, media_type="image/png")


@app.get("/leaves")
def leaves() -> StreamingResponse:
    return StreamingResponse(shop.leaves(), media_type="text/plain")


@app.get("/opened", response_class=PlainTextResponse)
async def opened(request: Request) -> str:
    return request.state.opened


@app.websocket("/tasting/{tea}")
async def tasting(websocket: WebSocket, tea: str, q: str) -> None:
    await websocket.accept()
    await websocket.send_text(shop.welcome(tea, q))
    async for data in websocket.iter_text():
        if data == "bye":
            await websocket.close(4001, "süß ☕")
            return
        await websocket.send_text(data.upper())


# What goes in and what comes out.


class TeaIn(BaseModel):
    name: str
    grams: int = Field(gt=0)
    supplier: str


class TeaOut(BaseModel):
    name: str
    grams: int


stock = APIRouter(prefix="/stock", tags=["stock"])


@stock.put("/{tea_id}", response_model=TeaOut, status_code=201)
async def put_stock(tea_id: int, tea: TeaIn, response: Response) -> Any:
    response.headers["x-tea-id"] = str(tea_id)
    return tea


@stock.get("/", response_model=list[TeaOut])
async def get_stock(limit: Annotated[int, Query(le=10)] = 2) -> Any:
    return [{"name": "Assam", "grams": 100, "supplier": "secret"}] * limit


app.include_router(stock)


# Dependencies, also those that clean up.


def drawer(request: Request) -> Iterator[str]:
    steps: list[str] = request.state.steps
    steps.append("opened")
    try:
        yield "drawer"
    except HTTPException:
        steps.append("rolled back")
        raise
    finally:
        steps.append("closed")
        shop.journal("the drawer is closed")


@app.post("/sell")
def sell(opened: Annotated[str, Depends(drawer)], request: Request, price: int) -> list[str]:
    if price < 0:
        raise HTTPException(409, {"price": price}, headers={"x-till": "shut"})
    request.state.steps.append("sold")
    return list(request.state.steps)


@app.get("/steps")
async def steps(request: Request) -> list[str]:
    taken = list(request.state.steps)
    request.state.steps.clear()
    return taken


@app.post("/letters", status_code=202)
async def letters(to: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(shop.journal, f"a letter to {to}")


# Who may.

bearer = OAuth2PasswordBearer(tokenUrl="token")


@app.post("/token")
async def token(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> dict[str, str]:
    if form.password != "kettle":
        raise HTTPException(401, "wrong password", headers={"WWW-Authenticate": "Bearer"})
    return {"access_token": form.username, "token_type": "bearer"}


@app.get("/me")
async def me(user: Annotated[str, Depends(bearer)]) -> str:
    return user


async def member(
    card: Annotated[str | None, Query()] = None, x_card: Annotated[str | None, Header()] = None
) -> str:
    if found := card or x_card:
        return found
    raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "no card")


@app.websocket("/members")
async def members(websocket: WebSocket, card: Annotated[str, Depends(member)]) -> None:
    await websocket.accept()
    await websocket.send_json({"card": card})
    if await websocket.receive_text() == "cheat":
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "caught")


# Errors.


class SoldOutError(Exception):
    pass


@app.exception_handler(SoldOutError)
async def sold_out(request: Request, error: SoldOutError) -> PlainTextResponse:
    return PlainTextResponse("sold out", 410)


@app.exception_handler(RequestValidationError)
async def invalid(request: Request, error: RequestValidationError) -> PlainTextResponse:
    return PlainTextResponse(f"{error.errors()[0]['loc'][-1]} is wrong", 400)


@app.get("/last")
async def last() -> None:
    raise SoldOutError


@app.get("/prices", response_class=EventSourceResponse)
async def prices(
    last_event_id: Annotated[int, Header()] = 0,
) -> AsyncIterator[ServerSentEvent]:
    for number in range(last_event_id + 1, 6):
        yield ServerSentEvent(data={"cents": number * 100}, id=str(number), event="price")


# An application of its own below this one.

supplier = FastAPI(title="Supplier")


@supplier.get("/where")
async def where(request: Request) -> str:
    return request.scope["root_path"]


app.mount("/supplier", supplier)
