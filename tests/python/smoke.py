"""Imports the installed package, serves a WSGI and an ASGI application, stops.

For interpreters that have nothing but the package: only the standard library is used.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

APPLICATIONS = """
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"wsgi " + environ["PATH_INFO"].encode()]


async def asgi(scope, receive, send):
    assert scope["type"] == "http", "lifespan is not supported"
    body = b"asgi " + scope["path"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


def fail(server: "subprocess.Popen[str]", problem: str, output: "list[str]") -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
    sys.exit(f"error: {problem}\n{''.join(output)}")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "smoke_applications.py").write_text(APPLICATIONS, encoding="utf-8")
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "twinspan", "--bind", "127.0.0.1:0"),
                *("--mount", "/asgi=smoke_applications:asgi"),
                *("--mount", "/=smoke_applications:wsgi"),
            ],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert server.stderr is not None
        output: list[str] = []
        # A server that hangs is killed, which ends its output and so the waits below.
        watchdog = threading.Timer(60, lambda: os.killpg(server.pid, signal.SIGKILL))
        watchdog.start()
        try:
            url = ""
            for line in server.stderr:
                output.append(line)
                if found := re.search(r"listening on (http://127\.0\.0\.1:\d+)", line):
                    url = found[1]
                    break
            if not url:
                fail(server, "the server did not say where it listens", output)
            for path, expected in (("/asgi/a", b"asgi /asgi/a"), ("/b", b"wsgi /b")):
                with urllib.request.urlopen(url + path, timeout=20) as response:
                    body = response.read()
                if body != expected:
                    fail(server, f"{path} answered {body!r}, not {expected!r}", output)
            server.send_signal(signal.SIGTERM)
            output += server.stderr
            if server.wait(20) != 0:
                fail(server, f"SIGTERM ended the server with {server.returncode}", output)
        finally:
            watchdog.cancel()
            server.stderr.close()
    print("served WSGI and ASGI on Python {}.{}.{}".format(*sys.version_info))


if __name__ == "__main__":
    main()
