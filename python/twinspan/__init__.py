"""Serves WSGI and ASGI applications mixed on one port."""

from ._serve import Server, serve
from ._twinspan import __version__

__all__ = ["Server", "__version__", "serve"]
