#!/usr/bin/env python3
"""What does choosing by more than chance cost? Instructions of the proxy for one request, counted by valgrind.

One connection sends the same GET again and again; the count is the difference between a long and a short run, divided by
the requests between them, so that starting costs nothing. It hardly differs from run to run, also on a busy machine, but
says nothing about waiting: bench/proxy.sh is for that.

    bench/instructions.py [CASE…]
    BASE=path/to/an/earlier/standalone bench/instructions.py base unused
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

PORT = int(os.environ.get("PORT", "19310"))
SHORT, LONG = 1_000, 9_000
TARGET = os.environ.get("CARGO_TARGET_DIR", "target")
EXAMPLES = f"{TARGET}/test-release/examples"
HEAD = (
    "GET /a/b?x=1&y=2 HTTP/1.1\r\nHost: web\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n"
    "Accept-Language: en\r\nAccept-Encoding: gzip\r\n"
    "Cookie: theme=dark; session=0123456789abcdef; lang=en; _ga=GA1.1.123456789.1234567890{cookie}\r\n\r\n"
)
KNOWN = "; evenkeel-visitor=0123456789abcdef0123456789abcdef"
CASES = {
    "unused": ([], ""),
    "1 service by route": (["services=1"], ""),
    "1000 services by route": (["services=1000"], ""),
    "3 pins": (["pins=3"], ""),
    "16 pins": (["pins=16"], ""),
    "64 pins": (["pins=64"], ""),
    "sticky by cookie": (["sticky=cookie"], ""),
    "sticky by address": (["sticky=address"], ""),
    "sticky by visitor, known": (["sticky=visitor"], KNOWN),
    "sticky by visitor, new": (["sticky=visitor"], ""),
    "mirror 0.01 %": (["mirror=1"], ""),
    "mirror 100 %": (["mirror=10000"], ""),
}


def connect():
    for _ in range(600):
        try:
            connection = socket.create_connection(("127.0.0.1", PORT))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except OSError:
            time.sleep(0.05)
    sys.exit("the proxy does not listen")


def send(connection, request, times):
    answers = connection.makefile("rb")
    for _ in range(times):
        connection.sendall(request)
        length = 0
        while (line := answers.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answers.read(length)


def instructions(binary, options, cookie, requests):
    with tempfile.TemporaryDirectory() as directory:
        upstreams = [f"127.0.0.1:{PORT + 1}=9500", f"127.0.0.1:{PORT + 2}=500"]
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out"]
        command = [*valgrind, binary, f"{directory}/state", f"127.0.0.1:{PORT}", "1", *upstreams, *options]
        proxy = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        with connect() as connection:
            send(connection, HEAD.format(cookie=cookie).encode(), requests)
        proxy.send_signal(signal.SIGTERM)
        said = proxy.communicate(timeout=60)[1]
        return int(re.search(r"Collected : (\d+)", said).group(1))


def main():
    build = ["cargo", "build", "--quiet", "--profile", "test-release", "-p", "evenkeel-proxy"]
    subprocess.run([*build, "--example", "standalone", "--example", "bench_upstream"], check=True)
    names = sys.argv[1:] or list(CASES)
    upstream = subprocess.Popen(
        [f"{EXAMPLES}/bench_upstream", f"127.0.0.1:{PORT + 1}", f"127.0.0.1:{PORT + 2}"], stdout=subprocess.DEVNULL
    )
    try:
        for name in names:
            binary = os.environ["BASE"] if name == "base" else f"{EXAMPLES}/standalone"
            options, cookie = CASES["unused" if name == "base" else name]
            short, long = (instructions(binary, options, cookie, requests) for requests in (SHORT, LONG))
            print(f"{name:26} {(long - short) / (LONG - SHORT):8.0f}", flush=True)
    finally:
        upstream.terminate()
        upstream.wait()


os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/..")
main()
