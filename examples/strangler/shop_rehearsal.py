"""`shop_pages` with mistakes to find, for the rehearsal in docs/guides/flask-to-fastapi.md.

The file `mistakes` beside the database says which are in: `price` shows every product one cent too
dear, `crash` fails every other time that somebody looks at their orders. Read at the start.
"""

import itertools
from dataclasses import replace

import shop_store as store
from fastapi import Request
from shop_pages import app, known_product, user

__all__ = ["app"]

path = store.folder() / "mistakes"
mistakes = path.read_text().split() if path.exists() else []
count = itertools.count()


def dearer(product_id: int) -> store.Product:
    product = known_product(product_id)
    return replace(product, cents=product.cents + 1)


def crashing(request: Request) -> str:
    name = user(request)
    if request.method == "GET" and request.url.path == "/orders" and next(count) % 2:
        raise RuntimeError("the rehearsal has planted this")
    return name


if "price" in mistakes:
    app.dependency_overrides[known_product] = dearer
if "crash" in mistakes:
    app.dependency_overrides[user] = crashing
