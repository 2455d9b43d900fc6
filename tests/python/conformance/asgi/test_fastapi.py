"""What FastAPI builds upon `receive` and `send`: dependencies that end after the response."""

# FastAPI reads the annotations, of functions within functions too: they are no strings here.
import asyncio
import contextvars
import json
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from conformance.asgi.apps import Seen, Site
from fastapi import Depends, FastAPI, HTTPException
from starlette.responses import StreamingResponse

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_dependencies_with_yield_end_after_the_response(site: Site) -> None:
    seen = Seen()

    async def session() -> AsyncIterator[str]:
        variable.set("in the dependency")
        try:
            yield "session"
        except LookupError:
            seen("rolled back")
            raise
        finally:
            seen("closed")

    def of_a_thread(
        value: Annotated[str, Depends(session)],
    ) -> Iterator[str]:
        yield value + " of a thread"
        seen("closed in its thread")

    app = FastAPI()

    @app.get("/{path:path}")
    async def endpoint(path: str, value: Annotated[str, Depends(of_a_thread)]) -> dict[str, str]:
        if path.endswith("error"):
            raise HTTPException(404, "not there")
        if path.endswith("bug"):
            raise LookupError("in the endpoint")
        return {"value": value, "variable": variable.get()}

    site.serve(app)
    answer = json.loads(site.ask(path="/fine").body)
    assert answer == {"value": "session of a thread", "variable": "in the dependency"}
    assert seen.wait(2) == ["closed in its thread", "closed"]
    assert site.ask(path="/error").status == 404
    assert site.ended_log() == ""
    assert site.ask(path="/bug").status == 500
    assert "LookupError: in the endpoint" in site.ended_log()
    assert seen.values[-2:] == ["rolled back", "closed"]


def test_dependencies_with_yield_end_when_the_client_of_a_stream_leaves(site: Site) -> None:
    seen = Seen()

    async def session() -> AsyncIterator[str]:
        try:
            yield "session"
        finally:
            seen("closed")

    app = FastAPI()

    @app.get("/{path:path}")
    async def endpoint(value: Annotated[str, Depends(session)]) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            try:
                while True:
                    yield value
                    await asyncio.sleep(0.001)
            finally:
                seen("generator ended")

        return StreamingResponse(pieces())

    site.serve(app)
    exchange = site.start()
    assert exchange.head().status == 200
    exchange.take(1)
    exchange.leave()
    assert sorted(seen.wait(2)) == ["closed", "generator ended"]
    assert site.ended_log() == ""
