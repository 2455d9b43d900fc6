"""What gets copies of requests to `flask_app` and answers as it does."""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

app = FastAPI()


@app.get("/legacy/hello", response_class=HTMLResponse)
async def hello() -> str:
    return "Hello, world!"
