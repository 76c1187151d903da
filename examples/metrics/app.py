import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CACHE = {}
counted = {"hit": 0, "miss": 0}


def look_up(path):
    counted["hit" if path in CACHE else "miss"] += 1
    return CACHE.setdefault(path, f"page {path}\n")


def metrics():
    lines = ["# HELP cache_requests_total Pages by whether the cache had them.", "# TYPE cache_requests_total counter"]
    lines += [f'cache_requests_total{{result="{result}"}} {count}' for result, count in counted.items()]
    lines += ["# TYPE cache_entries gauge", f"cache_entries {len(CACHE)}"]
    return "\n".join(lines) + "\n"


class Catalog(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        text = metrics() if self.path == "/metrics" else "ok\n" if self.path == "/health" else look_up(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Catalog).serve_forever()
