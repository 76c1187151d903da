"""A service that takes as much memory as HOARD_MIB says, and keeps a processor busy when BUSY is 1."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

hoard = bytearray(os.urandom(1 << 20)) * int(os.environ.get("HOARD_MIB", "0"))


def busy():
    while True:
        sum(range(100_000))


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"hello\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


if os.environ.get("BUSY") == "1":
    threading.Thread(target=busy, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Hello).serve_forever()
