"""Flask with server-side sessions, kept in files and, for another application, in SQLite."""

import os
import threading
from pathlib import Path

from cachelib.file import FileSystemCache
from flask import Flask, abort, request, session
from flask.typing import ResponseReturnValue
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy

DATA = Path(os.environ["SESSIONS"])
TIMEOUT = 20.0


def make(name: str) -> Flask:
    app = Flask(name)
    # Both are served on one host, and cookies know no ports or mounts.
    app.config["SESSION_COOKIE_NAME"] = f"session-{name}"
    meetings: dict[int, threading.Barrier] = {}
    lock = threading.Lock()

    @app.post("/login")
    def login() -> ResponseReturnValue:
        if request.form["password"] != "kettle":
            abort(403)
        session["user"] = request.form["user"]
        # Who knew the identifier of before must not be logged in as well.
        getattr(app.session_interface, "regenerate")(session)  # noqa: B009 # untyped
        return "", 204

    @app.post("/logout")
    def logout() -> ResponseReturnValue:
        session.clear()
        return "", 204

    @app.post("/count")
    def count() -> ResponseReturnValue:
        session["count"] = session.get("count", 0) + 1
        return {"count": session["count"]}

    @app.get("/user")
    def user() -> ResponseReturnValue:
        return {"user": session.get("user"), "count": session.get("count", 0)}

    @app.get("/meet/<int:number>")
    def meet(number: int) -> ResponseReturnValue:
        """Waits until `number` requests are here, each on a thread of its own."""
        with lock:
            meeting = meetings.setdefault(number, threading.Barrier(number))
        meeting.wait(TIMEOUT)
        return {"user": session.get("user"), "thread": threading.get_ident()}

    return app


files = make("files")
files.config["SESSION_TYPE"] = "cachelib"
files.config["SESSION_CACHELIB"] = FileSystemCache(str(DATA / "files"))
Session(files)

database = make("database")
database.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{DATA / 'sessions.sqlite3'}"
database.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": {"timeout": TIMEOUT}}
database.config["SESSION_TYPE"] = "sqlalchemy"
database.config["SESSION_SQLALCHEMY"] = SQLAlchemy(database)
Session(database)
