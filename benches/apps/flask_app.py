"""The old half of a migration: one route of Flask.

The route has two paths because servers that mount an application at `/legacy` strip that prefix.
"""

from flask import Flask

app = Flask(__name__)


@app.get("/hello")
@app.get("/legacy/hello")
def hello() -> str:
    return "Hello, world!"
