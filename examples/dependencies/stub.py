"""A stub of an OpenAI-compatible API, to be tried against: it streams a few words, or fails as it is told.

    python3 stub.py PORT NAME
    curl -X POST http://127.0.0.1:PORT/_mode -d hang       # works, slow, fails, stream-error, hang

It is no model, and answers everybody who shows the key `stub-key`.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = sys.argv[2]
mode = "works"


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global mode
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/_mode":
            mode = body.decode().strip()
            return self.answer(200, mode.encode())
        if self.headers.get("Authorization") != "Bearer stub-key":
            return self.answer(401, b'{"error":{"code":401,"message":"no key"}}')
        if mode == "hang":
            time.sleep(60)
        if mode == "slow":
            time.sleep(2)
        if mode == "fails":
            return self.answer(502, b'{"error":{"code":502,"message":"model down"}}')
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(b": PROCESSING\n\n")
        if mode == "stream-error":
            return self.event({"error": {"code": 502, "message": "no provider"}})
        for word in ["news ", "from ", NAME, " ", json.loads(body)["model"]]:
            self.event({"choices": [{"delta": {"content": word}}]})
            time.sleep(0.005)
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, event):
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
