"""A small shop: orders in PostgreSQL, visits in Redis, and an assistant behind an OpenAI-compatible API.

It knows three URLs from its environment and no credentials, and has no circuit breaker. When something is down it shows the
page without it: that takes an `except`, and an answer that comes soon.
"""

import json
import os
import queue
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
import redis

connections = queue.LifoQueue()
visits = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=5, socket_connect_timeout=5)


def orders():
    try:
        connection = connections.get_nowait()
    except queue.Empty:
        connection = psycopg2.connect(os.environ["DATABASE_URL"], connect_timeout=5)
        connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_class")
        count = cursor.fetchone()[0]
    connections.put(connection)
    return {"orders": count}


def count_visit():
    return {"visits": visits.incr("visits")}


def chat():
    body = {"model": "large", "stream": True, "messages": [{"role": "user", "content": "What is new?"}]}
    request = urllib.request.Request(
        os.environ["OPENROUTER_URL"] + "/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    words = []
    with urllib.request.urlopen(request, timeout=10) as answer:
        by = answer.headers.get("evenkeel-fallback", "")
        for line in answer:
            if line.startswith(b"data: {"):
                part = json.loads(line[6:])
                if "error" in part:
                    raise OSError(part["error"]["message"])
                words.append(part["choices"][0]["delta"].get("content", ""))
    return {"text": "".join(words), "fallback": by}


PAGES = {"/orders": orders, "/visits": count_visit, "/chat": chat}


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        page = PAGES.get(self.path, lambda: {"healthy": True})
        try:
            body = page()
        except (psycopg2.Error, redis.RedisError, OSError) as error:
            body = {"without": str(error).strip().splitlines()[0]}
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Shop).serve_forever()
