"""The shop's data: one SQLite file that the old and the new application share.

Both applications import this module and neither keeps anything in memory, because they may run as
several worker processes. The folder is `$SHOP_DATA`, or `instance` beside this file; it is made and
filled at first use.
"""

import functools
import hashlib
import hmac
import os
import secrets
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

# What may follow a status. A board with a stale column must not send an order back in time.
NEXT_STATUS = {
    "new": ("packed", "cancelled"),
    "packed": ("shipped", "cancelled"),
    "shipped": ("delivered",),
    "delivered": (),
    "cancelled": (),
}
OPEN_STATUSES = ("new", "packed", "shipped")
MOST_PER_ORDER = 99

SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE users (
    name TEXT PRIMARY KEY, salt BLOB NOT NULL, password BLOB NOT NULL, staff INTEGER NOT NULL
);
CREATE TABLE products (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, origin TEXT NOT NULL, note TEXT NOT NULL,
    cents INTEGER NOT NULL, hue INTEGER NOT NULL, picture TEXT
);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    product_id INTEGER NOT NULL REFERENCES products (id),
    quantity INTEGER NOT NULL, customer TEXT NOT NULL, status TEXT NOT NULL, placed TEXT NOT NULL,
    -- Grows with every insert and update: a reader remembers the highest that it saw and asks for
    -- what came after.
    change INTEGER NOT NULL
);
CREATE INDEX orders_by_change ON orders (change);
CREATE INDEX orders_by_status ON orders (status);
"""

PRODUCTS = [
    ("Sencha", "Shizuoka, Japan", "Grass, sea air, a clean finish. Steep at 70 °C.", 1450, 95),
    ("Assam", "Dibrugarh, India", "Malt and dark honey. Stands up to milk.", 980, 18),
    ("Oolong", "Anxi, China", "Orchid first, roasted nuts later. Good for five steeps.", 1890, 42),
    ("Rooibos", "Cederberg, South Africa", "Sweet, red, free of caffeine.", 760, 6),
    ("Lapsang", "Wuyi, China", "Dried over pine smoke. You know if you like it.", 1320, 260),
    ("Peppermint", "Provence, France", "Whole leaves, nothing else.", 690, 155),
]
# Of a demonstration: the login page shows them. Ada works in the shop, Grace buys there.
USERS = {"ada": "kettle", "grace": "teapot"}
STAFF = {"ada"}
CUSTOMERS = ("ada", "grace", "edsger", "barbara", "tony")


class ConflictError(Exception):
    """The order cannot take the status that was asked for."""


@dataclass(frozen=True)
class Product:
    id: int
    name: str
    origin: str
    note: str
    cents: int
    hue: int
    picture: str | None

    @property
    def price(self) -> str:
        return money(self.cents)


@dataclass(frozen=True)
class Order:
    id: int
    product_id: int
    product: str
    quantity: int
    customer: str
    status: str
    placed: str
    cents: int
    change: int

    @property
    def price(self) -> str:
        return money(self.cents)

    @property
    def next_statuses(self) -> tuple[str, ...]:
        return NEXT_STATUS[self.status]


def money(cents: int) -> str:
    return f"€ {cents // 100}.{cents % 100:02}"


def timestamp(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def folder() -> Path:
    return Path(os.environ.get("SHOP_DATA") or Path(__file__).parent / "instance")


def pictures() -> Path:
    path = folder() / "pictures"
    path.mkdir(parents=True, exist_ok=True)
    return path


def connect() -> sqlite3.Connection:
    """A connection for one caller: they are cheap, and not made for sharing between threads."""
    path = folder() / "shop.sqlite"
    prepare(path)
    connection = sqlite3.connect(path, timeout=10)
    connection.row_factory = sqlite3.Row
    return connection


@contextmanager
def transaction() -> Generator[sqlite3.Connection]:
    with closing(connect()) as connection, connection:
        yield connection


@functools.cache
def prepare(path: Path) -> None:
    """Makes the database at first use.

    It is built under another name and linked into place whole, so that workers that start together
    never see half of it; the one that comes second finds the name taken and drops its own.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with closing(sqlite3.connect(draft)) as connection, connection:
            # Write-ahead log: readers (the live board) and the writer never wait for each other.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)
            fill(connection)
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)


def fill(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO settings VALUES ('secret_key', ?)", [secrets.token_hex(32)])
    for name, password in USERS.items():
        salt = secrets.token_bytes(16)
        connection.execute(
            "INSERT INTO users VALUES (?, ?, ?, ?)",
            [name, salt, password_hash(password, salt), name in STAFF],
        )
    connection.executemany(
        "INSERT INTO products (name, origin, note, cents, hue) VALUES (?, ?, ?, ?, ?)", PRODUCTS
    )
    now = datetime.now(timezone.utc)
    recent = {0: "new", 1: "new", 2: "packed", 3: "shipped"}
    for number in range(300):
        age = 299 - number
        connection.execute(
            "INSERT INTO orders (product_id, quantity, customer, status, placed, change)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [
                number * 7 % len(PRODUCTS) + 1,
                number * 5 % 4 + 1,
                CUSTOMERS[number * 3 % len(CUSTOMERS)],
                recent.get(age, "cancelled" if number % 17 == 0 else "delivered"),
                timestamp(now - timedelta(hours=4 * age, minutes=number * 13 % 60)),
                number + 1,
            ],
        )


def password_hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def check_password(name: str, password: str) -> bool:
    with transaction() as connection:
        rows = connection.execute("SELECT salt, password FROM users WHERE name = ?", [name])
        row = rows.fetchone()
    # An unknown name costs as much time as a wrong password.
    salt, expected = (row["salt"], row["password"]) if row else (b"", b"")
    return hmac.compare_digest(password_hash(password, salt), expected)


def is_staff(name: str) -> bool:
    with transaction() as connection:
        rows = connection.execute("SELECT 1 FROM users WHERE name = ? AND staff", [name])
        return rows.fetchone() is not None


def secret_key() -> str:
    """The key that signs session cookies: one for both applications and every worker."""
    with transaction() as connection:
        rows = connection.execute("SELECT value FROM settings WHERE name = 'secret_key'")
        return rows.fetchone()["value"]


def products() -> list[Product]:
    with transaction() as connection:
        rows = connection.execute("SELECT * FROM products ORDER BY name")
        return [Product(**row) for row in rows]


def product(product_id: int) -> Product | None:
    with transaction() as connection:
        row = connection.execute("SELECT * FROM products WHERE id = ?", [product_id]).fetchone()
    return Product(**row) if row else None


def set_picture(product_id: int, name: str) -> None:
    with transaction() as connection:
        connection.execute("UPDATE products SET picture = ? WHERE id = ?", [name, product_id])


SELECT_ORDERS = """
SELECT orders.id, product_id, products.name AS product, quantity, customer, status, placed,
       quantity * cents AS cents, change
FROM orders JOIN products ON products.id = product_id
"""


def place_order(product_id: int, quantity: int, customer: str) -> Order:
    with transaction() as connection:
        order_id = connection.execute(
            "INSERT INTO orders (product_id, quantity, customer, status, placed, change)"
            " VALUES (?, ?, ?, 'new', ?, (SELECT COALESCE(MAX(change), 0) + 1 FROM orders))",
            [product_id, quantity, customer, timestamp(datetime.now(timezone.utc))],
        ).lastrowid
        return one_order(connection, order_id)


def set_status(order_id: int, status: str) -> Order:
    """Moves an order on.

    Raises `ConflictError` if it is no longer in a status that `status` may follow; the check and
    the change are one statement, so that two people who press the button together do not both win.
    """
    before = [known for known, following in NEXT_STATUS.items() if status in following]
    with transaction() as connection:
        moved = connection.execute(
            "UPDATE orders SET status = ?, change = (SELECT MAX(change) + 1 FROM orders)"
            f" WHERE id = ? AND status IN ({', '.join('?' * len(before))})",
            [status, order_id, *before],
        ).rowcount
        current = one_order(connection, order_id)
    if not moved:
        raise ConflictError(f"order {order_id} is {current.status}, so it cannot become {status}")
    return current


def one_order(connection: sqlite3.Connection, order_id: int | None) -> Order:
    return Order(**connection.execute(SELECT_ORDERS + "WHERE orders.id = ?", [order_id]).fetchone())


def order(order_id: int) -> Order | None:
    found = find_orders("WHERE orders.id = ?", [order_id])
    return found[0] if found else None


def open_orders() -> list[Order]:
    marks = ", ".join("?" * len(OPEN_STATUSES))
    return find_orders(f"WHERE status IN ({marks}) ORDER BY orders.id", OPEN_STATUSES)


def orders(customer: str | None = None, status: str | None = None, limit: int = 50) -> list[Order]:
    """The latest orders, of one customer or with one status where that is given."""
    return find_orders(
        "WHERE customer = COALESCE(?, customer) AND status = COALESCE(?, status)"
        " ORDER BY orders.id DESC LIMIT ?",
        [customer, status, limit],
    )


def orders_changed_after(change: int) -> list[Order]:
    return find_orders("WHERE change > ? ORDER BY change", [change])


def find_orders(where: str, values: Any) -> list[Order]:
    with transaction() as connection:
        return [Order(**row) for row in connection.execute(SELECT_ORDERS + where, values)]


def every_order() -> Iterator[Order]:
    """All orders, oldest first, read from the database as they are asked for."""
    with transaction() as connection:
        for row in connection.execute(SELECT_ORDERS + "ORDER BY orders.id"):
            yield Order(**row)


def latest_change(connection: sqlite3.Connection) -> int:
    return connection.execute("SELECT COALESCE(MAX(change), 0) FROM orders").fetchone()[0]
