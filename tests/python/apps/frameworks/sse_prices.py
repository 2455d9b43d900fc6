"""sse-starlette: events that go on where a client lost them, until it leaves."""

import asyncio
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from . import shop


async def prices(request: Request) -> EventSourceResponse:
    async def events() -> AsyncIterator[ServerSentEvent]:
        number = int(request.headers.get("last-event-id", 0))
        try:
            while True:
                number += 1
                yield ServerSentEvent(f"{number * 100}", event="price", id=str(number), retry=10)
                await asyncio.sleep(0.01)
        finally:
            shop.journal(f"nobody listens to {request.query_params['to']}")

    return EventSourceResponse(events())


app = Starlette(routes=[Route("/prices", prices)])
