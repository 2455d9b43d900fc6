"""Servers for tests: real sockets, any free port, stopped at the end of a ``with`` block.

```
from twinspan.testing import Server


def test_shop():
    with Server(app) as server:
        assert httpx.get(server.url + "/").status_code == 200
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._serve import Server as _Server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._serve import Target


class Server(_Server):
    """Like :class:`twinspan.Server`, on a free port of 127.0.0.1 unless told otherwise.

    It prints what goes wrong, tracebacks of applications above all, and nothing else:
    ``access_log`` is off and ``log_level`` is ``"warning"`` unless they are given.
    """

    def __init__(
        self, *apps: Target, mounts: Mapping[str, Target] | None = None, **options: object
    ) -> None:
        if not options.keys() & {"bind", "host", "port", "uds"}:
            options["bind"] = "127.0.0.1:0"
        options.setdefault("access_log", False)
        options.setdefault("log_level", "warning")
        super().__init__(*apps, mounts=mounts, **options)

    @property
    def address(self) -> str:
        """The first address: ``127.0.0.1:49152``, ``unix:/run/app.sock``."""
        return self.addresses[0]

    @property
    def port(self) -> int:
        """The port of the first address."""
        return int(self.address.rpartition(":")[2])

    @property
    def url(self) -> str:
        """``http://127.0.0.1:49152``, without a slash at the end."""
        return f"http://{self.address}"
