"""A Flask application over one SQLite file, by SQLAlchemy's `scoped_session` and by bare sqlite3.

Neither kind of connection may leave its thread: sqlite3 raises where it does. What happened to them
is counted, for `/counts` to tell.
"""

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar, Token

from flask import Flask, Response, g, request, stream_with_context
from flask.typing import ResponseReturnValue
from sqlalchemy import String, create_engine, event, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker
from sqlalchemy.pool import SingletonThreadPool

FILE = os.environ["LEDGER"]
TIMEOUT = 20.0


class Base(DeclarativeBase):
    pass


class Entry(Base):
    __tablename__ = "entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(40), unique=True)


engine = create_engine(
    f"sqlite:///{FILE}",
    # A connection for each thread, and more of them than there are threads.
    poolclass=SingletonThreadPool,
    pool_size=100,
    connect_args={"check_same_thread": True, "timeout": TIMEOUT},
)
Session = scoped_session(sessionmaker(engine))
app = Flask(__name__)

counts: Counter[str] = Counter()
changed = threading.Condition()
meetings: dict[int, threading.Barrier] = {}
local = threading.local()
mark: ContextVar[str] = ContextVar("mark", default="nobody's")


def count(what: str) -> None:
    with changed:
        counts[what] += 1
        changed.notify_all()


@event.listens_for(engine, "connect")
def prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    count("connected")


@event.listens_for(engine, "checkout")
def checked_out(*_: object) -> None:
    count("checked out")


@event.listens_for(engine, "checkin")
def checked_in(*_: object) -> None:
    count("checked in")


Base.metadata.create_all(engine)


@app.teardown_appcontext
def put_away(_error: BaseException | None) -> None:
    Session.remove()
    if database := g.pop("database", None):
        database.close()
        count("closed")
    count("ended on its thread" if g.thread == threading.get_ident() else "ended elsewhere")


@app.before_request
def remember_thread() -> None:
    g.thread = threading.get_ident()


def bare() -> sqlite3.Connection:
    """The connection of this request, as Flask's own tutorial has it."""
    if "database" not in g:
        g.database = sqlite3.connect(FILE, timeout=TIMEOUT)
        count("opened")
    return g.database


def whereabouts() -> dict[str, int]:
    connection = Session.connection().connection.driver_connection
    assert isinstance(connection, sqlite3.Connection)
    threads = [t for t in threading.enumerate() if t.name.startswith("twinspan-")]
    return {
        "thread": threading.get_ident(),
        "session": id(Session()),
        "connection": id(connection),
        "threads": len(threads),
    }


@app.get("/meet/<int:number>")
def meet(number: int) -> ResponseReturnValue:
    """Waits, in the midst of a transaction, until `number` requests are here."""
    Session.scalars(select(Entry)).all()
    with changed:
        meeting = meetings.setdefault(number, threading.Barrier(number))
    meeting.wait(TIMEOUT)
    return whereabouts()


@app.get("/local")
def of_thread() -> ResponseReturnValue:
    """Also how many of these requests the thread has seen."""
    local.seen = getattr(local, "seen", 0) + 1
    return {**whereabouts(), "seen": local.seen}


@app.post("/entries")
def write() -> ResponseReturnValue:
    Session.add(Entry(text=request.form["text"]))
    if request.args.get("by") == "bare":
        with bare():
            bare().execute("INSERT INTO entries (text) VALUES (?)", [request.form["text"] + "b"])
    Session.commit()
    return {}, 201


@app.post("/entries/broken")
def write_and_raise() -> ResponseReturnValue:
    Session.add(Entry(text=request.form["text"]))
    Session.flush()
    raise {"SystemExit": SystemExit, "ValueError": ValueError}[request.args["raises"]]


@app.get("/entries")
def read() -> ResponseReturnValue:
    return {"texts": sorted(Session.scalars(select(Entry.text)))}


def rows(by: str) -> Iterator[str]:
    statement = (
        "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers) "
        "SELECT n FROM numbers LIMIT :limit"
    )
    values = {"limit": int(request.args["rows"])}
    if by == "bare":
        yield from (str(n) for (n,) in bare().execute(statement, values))
    else:
        result = Session.execute(text(statement), values, execution_options={"yield_per": 10})
        yield from (str(n) for (n,) in result)


@app.get("/stream/<by>")
def stream(by: str) -> ResponseReturnValue:
    """Reads from the database while it sends, a row at a time, and tells on which thread."""

    def lines() -> Iterator[str]:
        for row in rows(by):
            yield f"{row} {threading.get_ident()}{' ' * int(request.args.get('width', 0))}\n"

    response = Response(stream_with_context(lines()), mimetype="text/plain")
    response.call_on_close(lambda: count("streams closed"))
    return response


class Marked:
    """A response that looks at the context variable in every step, and puts it back in the last."""

    def __init__(self, token: Token[str]) -> None:
        self.token = token
        self.left = 3

    def __iter__(self) -> Iterator[str]:
        while self.left:
            self.left -= 1
            yield mark.get() + "\n"
            mark.set(f"step {3 - self.left}")

    def close(self) -> None:
        before = mark.get()
        # Python raises ValueError here in any other context than that of the call.
        mark.reset(self.token)
        count(f"{before}, then {mark.get()}")


@app.get("/context")
def context() -> ResponseReturnValue:
    before = mark.get()
    token = mark.set("the call's")
    response = Response(Marked(token), mimetype="text/plain")
    response.headers["x-before"] = before
    return response


@app.get("/counts")
def tell() -> ResponseReturnValue:
    """The counts, once no connection is in use and, if asked, `what` has come to `number`."""
    what, number = request.args.get("what", ""), request.args.get("number", 0, int)
    with changed:
        changed.wait_for(
            lambda: (
                counts["checked out"] == counts["checked in"]
                and counts["opened"] == counts["closed"]
                and counts[what] >= number
            ),
            TIMEOUT,
        )
        return dict(counts)
