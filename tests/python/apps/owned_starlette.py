"""A Starlette application that uses every path converter."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket


async def answer(request: Request) -> PlainTextResponse:
    body = " ".join(f"{name}={value!r}" for name, value in request.path_params.items())
    return PlainTextResponse(body, headers={"x-answered-by": "starlette"})


async def feed(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(f"feed {websocket.path_params['number']}")
    await websocket.close()


app = Starlette(
    routes=[
        Route("/int/{value:int}", answer),
        Route("/float/{value:float}", answer),
        Route("/uuid/{value:uuid}", answer),
        Route("/path/{value:path}", answer),
        Route("/text/{value}", answer, methods=["GET", "DELETE"]),
        Route("/{year:int}-{month:int}.html", answer),
        WebSocketRoute("/feed/{number:int}", feed),
    ]
)
