"""The JSON of Flask's session cookie: types that JSON lacks are objects with one key, their tag.

Written here and not taken from Flask (``flask.json.tag``), because the new application goes on with
the cookies of its users when Flask is gone.
"""

from __future__ import annotations

import dataclasses
import json
from base64 import b64decode, b64encode
from datetime import date, datetime, time, timezone
from decimal import Decimal
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable


def dumps(value: object) -> str:
    """Compact JSON.

    Raises ``TypeError`` for what no tag stands for.
    """
    return json.dumps(_tagged(value), separators=(",", ":"), default=_plain)


def loads(text: str) -> Any:
    """The value of :func:`dumps`, or of Flask."""
    return _untagged(json.loads(text))


def _tagged(value: object) -> object:
    if isinstance(value, dict):
        items = cast("dict[str, object]", value)
        if len(items) == 1:
            [(key, inner)] = items.items()
            if key in _READ:
                # An object that only looks like a tag.
                return {" di": {f"{key}__": _tagged(inner)}}
        return {key: _tagged(inner) for key, inner in items.items()}
    if isinstance(value, tuple):
        return {" t": [_tagged(item) for item in cast("tuple[object, ...]", value)]}
    if isinstance(value, list):
        return [_tagged(item) for item in cast("list[object]", value)]
    if isinstance(value, bytes):
        return {" b": b64encode(value).decode("ascii")}
    markup = getattr(value, "__html__", None)
    if callable(markup):
        return {" m": str(markup())}
    if isinstance(value, UUID):
        return {" u": value.hex}
    if isinstance(value, datetime):
        return {" d": _http_date(value)}
    return value


def _plain(value: object) -> object:
    """What Flask writes as something else, and reads as that."""
    if isinstance(value, date):
        return _http_date(datetime.combine(value, time()))
    if isinstance(value, Decimal):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    kind = type(value).__qualname__
    raise TypeError(f"a session cannot hold a `{kind}`: Flask has no way to write it to a cookie")


def _http_date(value: datetime) -> str:
    """To the second, in UTC, which is what a time without a zone is taken for."""
    zoned = (
        value.replace(tzinfo=timezone.utc)
        if value.tzinfo is None
        else value.astimezone(timezone.utc)
    )
    return format_datetime(zoned, usegmt=True)


def _untagged(value: object) -> object:
    if isinstance(value, list):
        return [_untagged(item) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    items = {key: _untagged(inner) for key, inner in cast("dict[str, object]", value).items()}
    if len(items) == 1:
        [(key, inner)] = items.items()
        if read := _READ.get(key):
            return read(inner)
    return items


def _read_object(value: dict[str, Any]) -> dict[str, Any]:
    [(key, inner)] = value.items()
    return {key[:-2]: inner}


def _read_markup(value: str) -> str:
    """Text again where MarkupSafe is gone: what was safe is escaped then, never the reverse."""
    try:
        from markupsafe import Markup  # noqa: PLC0415
    except ImportError:
        return value
    return Markup(value)


def _read_datetime(value: str) -> datetime:
    found = parsedate_to_datetime(value)
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


_READ: dict[str, Callable[[Any], object]] = {
    " di": _read_object,
    " t": tuple,
    " b": b64decode,
    " m": _read_markup,
    " u": UUID,
    " d": _read_datetime,
}
