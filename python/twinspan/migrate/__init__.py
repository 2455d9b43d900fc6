"""What two applications share while routes move from one to the other.

- :class:`FlaskSessionMiddleware`: an ASGI application reads and writes Flask's session cookie.
- :func:`apps`: the applications of the server from within a request: URLs of each other's routes
  (:meth:`Apps.url_for`), and requests to each other without a socket (:meth:`Apps.call`,
  :meth:`Apps.acall`).

Nothing that these work with is imported before it is used: neither framework has to be installed.
"""

from ._apps import Apps, Headers, Response, apps
from ._session import FlaskSession, FlaskSessionMiddleware

__all__ = ["Apps", "FlaskSession", "FlaskSessionMiddleware", "Headers", "Response", "apps"]
