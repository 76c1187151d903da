"""A small service that says which release it is. Versions that end in `-bad` fail one request in five."""

import os
import random
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = os.environ["VERSION"]


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        fails = VERSION.endswith("-bad") and self.path != "/health" and random.random() < 0.2
        text = f"{VERSION} says {'sorry' if fails else 'ok'}\n".encode()
        self.send_response(500 if fails else 200)
        self.send_header("X-Version", VERSION)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", int(os.environ["PORT"])), Shop).serve_forever()
