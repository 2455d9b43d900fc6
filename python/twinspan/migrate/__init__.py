"""What two applications share while routes move from one to the other.

- :class:`FlaskSessionMiddleware`: an ASGI application reads and writes Flask's session cookie.

Nothing that this works with is imported before it is used: neither framework has to be installed.
"""

from ._session import FlaskSession, FlaskSessionMiddleware

__all__ = ["FlaskSession", "FlaskSessionMiddleware"]
