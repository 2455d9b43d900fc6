"""A FastAPI application with every kind of route: half of a site, beside Flask.

Every answer says in `x-answered-by` that it is from here, errors and redirects included.
"""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

app = FastAPI()
app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"], allow_methods=["*"])


@app.middleware("http")
async def sign(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await proceed(request)
    response.headers["x-answered-by"] = "fastapi"
    return response


@app.get("/items/{item_id}")
def get_item(item_id: str) -> dict[str, str]:
    return {"item": item_id}


@app.post("/items")
def post_item() -> dict[str, str]:
    return {"item": "new"}


@app.put("/files/{path:path}")
def put_file(path: str) -> dict[str, str]:
    return {"path": path}


@app.get("/reports/")
def reports() -> dict[str, str]:
    return {"reports": "all"}


@app.get("/both/")
def both() -> dict[str, str]:
    return {"both": "with a slash"}


@app.websocket("/ws/{room}")
async def room(websocket: WebSocket, room: str) -> None:
    await websocket.accept()
    await websocket.send_text(f"room {room}")
    await websocket.close()


things = APIRouter(prefix="/things")


@things.get("/{number:int}")
def get_thing(number: int) -> dict[str, int]:
    return {"thing": number}


version = APIRouter(prefix="/v2")
version.include_router(things)
app.include_router(version)


async def deep(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"deep {request.path_params['name']} {request.scope['root_path']}")


async def anything(scope: object, receive: object, send: object) -> None:
    await PlainTextResponse("anything")(scope, receive, send)  # pyright: ignore[reportArgumentType]


inner = Router([Route("/deep/{name}", deep)])
app.mount("/sub", Starlette(routes=[Mount("/inner", inner)]))
# Nobody can ask this one for its routes: what is mounted owns all that is below.
app.mount("/opaque", anything)
