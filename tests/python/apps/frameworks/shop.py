"""What the same small tea shop shows in every framework; routing, forms and uploads are theirs."""

import hashlib
import html
import os
import sys
from collections.abc import Iterator
from pathlib import Path

PICTURE = Path(os.environ["PICTURE"])
"""A file of a few hundred kilobytes with every byte in it."""


def tea(name: str, query: str, order: str) -> str:
    """The page of a tea, with what was asked for, and a form that goes to `order`."""
    return (
        f"<!doctype html><title>{html.escape(name)}</title><p id=query>{html.escape(query)}</p>"
        f'<form method="post" action="{html.escape(order)}"><input name="tea"></form>'
    )


def receipt(filename: str, content: bytes, note: str) -> dict[str, str | int]:
    """What came with an upload."""
    digest = hashlib.sha256(content).hexdigest()
    return {"filename": filename, "size": len(content), "sha256": digest, "note": note}


def leaves() -> Iterator[bytes]:
    """A body that is made while it is sent."""
    for number in range(100):
        yield f"leaf {number}\n".encode()


def welcome(tea: str, q: str) -> str:
    """What the WebSocket of a tasting says first."""
    return f"{tea}: {q}"


def journal(line: str) -> None:
    """Says what has happened where no response can tell."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
