"""Serves each application of the command line on a port of its own, all in this process."""

import sys
import threading
from contextlib import ExitStack

from twinspan.testing import Server

with ExitStack() as servers:
    for target in sys.argv[1:]:
        server = servers.enter_context(Server(target))
        sys.stdout.write(f"{target} is listening on {server.url}\n")
    sys.stdout.flush()
    threading.Event().wait()
