"""The new half of a migration: one JSON route of FastAPI.

The route has two paths because servers that mount an application at `/api` may strip that prefix.
"""

from fastapi import FastAPI

app = FastAPI()


@app.get("/hello")
@app.get("/api/hello")
async def hello() -> dict[str, str]:
    return {"message": "Hello, world!"}
