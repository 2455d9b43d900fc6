"""The session cookie of the old application, as the new one reads it.

A login must not end where a route has moved. Flask keeps its session in a signed cookie, so that
the new application needs only the key and Flask's way to sign (Flask 3.1,
`SecureCookieSessionInterface`). It reads the cookie and never writes it: one owner of the format is
enough.
"""

import hashlib
from typing import Any

import shop_store as store
from itsdangerous import BadSignature, URLSafeTimedSerializer

COOKIE = "session"
# Flask's PERMANENT_SESSION_LIFETIME: it accepts no older signature.
LIFETIME_SECONDS = 31 * 24 * 3600


def read(cookie: str | None) -> dict[str, Any]:
    """What the session holds; nothing if the cookie is missing, forged or too old."""
    serializer = URLSafeTimedSerializer(
        store.secret_key(),
        salt="cookie-session",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha1},
    )
    try:
        return serializer.loads(cookie or "", max_age=LIFETIME_SECONDS)
    except BadSignature:
        return {}
