"""A shop whose version fails as many requests as FAIL_PERCENT says."""
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import uniform

VERSION = "1.0"
FAIL_PERCENT = 0


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        is_bad = self.path != "/health/ready" and uniform(0, 100) < FAIL_PERCENT
        text = f"shop {VERSION} {'is out of order' if is_bad else 'at your service'}\n".encode()
        self.send_response(500 if is_bad else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Shop).serve_forever()
