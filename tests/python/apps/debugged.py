"""A Flask application behind Werkzeug's debugger.

The debugger is a generator function: nothing of the application runs, and `start_response` is not
called, before the first block is asked for.
"""

from collections.abc import Iterator

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from werkzeug.debug import DebuggedApplication

app = Flask(__name__)
# Exceptions go on to the debugger.
app.config["PROPAGATE_EXCEPTIONS"] = True


@app.route("/", methods=["GET", "POST"])
def page() -> ResponseReturnValue:
    return {"args": request.args, "form": request.form}


@app.post("/upload")
def upload() -> ResponseReturnValue:
    return Response(request.stream.read(), mimetype="application/octet-stream")


@app.get("/empty")
def empty() -> ResponseReturnValue:
    return "", 204


@app.get("/fail")
def fail() -> ResponseReturnValue:
    kettle = "boiled dry"
    raise LookupError(f"no tea: {kettle}")


@app.get("/stream")
def stream() -> ResponseReturnValue:
    last = request.args.get("last", "third")

    def pieces() -> Iterator[str]:
        yield "first "
        yield "second "
        if last == "fail":
            raise LookupError("no third piece")
        yield last

    return Response(pieces(), mimetype="text/plain")


application = DebuggedApplication(app, evalex=True)
