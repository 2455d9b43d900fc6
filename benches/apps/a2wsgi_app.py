"""Both halves behind one ASGI server: Starlette's router, and a2wsgi around the Flask application.

The Flask application is mounted into the FastAPI one (a Starlette application) as the last route.
A Starlette application around both would cost one more router per request.
"""

# Type checks do not need the other servers installed, and each of the three has its own idea of
# what an application is.
# pyright: reportMissingImports=false, reportArgumentType=false

from a2wsgi import WSGIMiddleware
from fastapi_app import app
from flask_app import app as flask_app

app.mount("/", WSGIMiddleware(flask_app))

__all__ = ["app"]
