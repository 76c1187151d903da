#!/usr/bin/env python3
"""What does a call through egress cost beside a request through the proxy?

Both have one worker, pinned to core 0, and the same upstream, which shares core 1 with the load (wrk). The figure is CPU
seconds per 100,000 requests from /proc/PID/stat; rounds are interleaved, and the ratio is the median of the rounds' ratios.
What else happens while a dependency hangs, and what 100,000 kept answers take, the example `measure` prints.

    bench/egress.py [--rounds 7] [--seconds 2] [--connections 64]
    bench/egress.py --instructions      # counted by valgrind, which a busy machine does not change
    bench/egress.py --kept              # 100,000 answers of 1 KiB to be kept in 64 MiB: the memory of the process
"""

import argparse
import http.server
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PORT = int(os.environ.get("PORT", "19400"))
TARGET = os.environ.get("CARGO_TARGET_DIR", "target")
EXAMPLES = f"{TARGET}/test-release/examples"
UPSTREAM, INGRESS, EGRESS = (f"127.0.0.1:{PORT + n}" for n in (1, 2, 3))
SHORT, LONG = 1_000, 9_000
HERTZ = os.sysconf("SC_CLK_TCK")

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--rounds", type=int, default=7)
arguments.add_argument("--seconds", type=int, default=2)
arguments.add_argument("--connections", type=int, default=64)
arguments.add_argument("--instructions", action="store_true", help="count instructions of one request")
arguments.add_argument("--kept", action="store_true", help="resident memory with 100,000 answers")
arguments = arguments.parse_args()


def answers(address):
    host, port = address.split(":")
    for _ in range(1_200):
        try:
            return socket.create_connection((host, int(port)))
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nobody listens at {address}")


def ticks(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1)) / 1024


def start(name, folder, under, *words, upstream=UPSTREAM):
    """The program, and the URL at which it is reached."""
    if name == "ingress":
        command = [f"{EXAMPLES}/standalone", f"{folder}/ingress", INGRESS, "1", f"{UPSTREAM}=10000"]
        program = subprocess.Popen([*under, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        answers(INGRESS).close()
        return program, f"http://{INGRESS}"
    command = [f"{EXAMPLES}/endpoint", f"{folder}/egress", EGRESS, "1", f"http://{upstream}", *words]
    program = subprocess.Popen([*under, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    token = program.stdout.readline().strip()
    answers(EGRESS).close()
    return program, f"http://{EGRESS}/{token}"


def load(url, seconds):
    """Requests that were answered, and what wrk says of them."""
    wrk = ["taskset", "-c", "1", "wrk", "-t1", f"-c{arguments.connections}", f"-d{seconds}s", "--latency"]
    said = subprocess.run([*wrk, f"{url}/path?query=1"], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        sys.exit(said)
    return int(re.search(r"(\d+) requests in", said).group(1)), said


def measure(folder):
    running = {name: start(name, folder, ["taskset", "-c", "0"]) for name in ("ingress", "egress")}
    costs = {name: [] for name in running}
    print("path requests cpu_s_per_100k requests_per_s p50 p99 rss_mib")
    try:
        for turn in range(arguments.rounds):
            for name in sorted(running, reverse=turn % 2 == 0):
                program, url = running[name]
                load(url, 1)
                before = ticks(program.pid)
                requests, said = load(url, arguments.seconds)
                cost = (ticks(program.pid) - before) / HERTZ / requests * 100_000
                costs[name].append(cost)
                shown = [re.search(rf"{part}%\s+(\S+)", said).group(1) for part in (50, 99)]
                rate = requests / arguments.seconds
                print(name, requests, f"{cost:.3f} {rate:.0f}", *shown, f"{resident(program.pid):.1f}", flush=True)
    finally:
        for program, _ in running.values():
            program.kill()
            program.wait()
    ratios = [egress / ingress for egress, ingress in zip(costs["egress"], costs["ingress"])]
    for name, cost in costs.items():
        print(f"{name}: {statistics.median(cost):.3f} CPU seconds per 100,000 requests")
    print(f"egress to ingress: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


class Keepable(http.server.BaseHTTPRequestHandler):
    """Answers 1 KiB that may be kept."""

    protocol_version, wbufsize = "HTTP/1.1", -1

    def do_GET(self):
        self.send_response(200)
        self.send_header("Cache-Control", "max-age=3600")
        self.send_header("Content-Length", "1024")
        self.end_headers()
        self.wfile.write(b"x" * 1024)

    def log_message(self, *_):
        pass


def keep():
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keepable)
    upstream.daemon_threads = True
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    place = f"127.0.0.1:{upstream.server_address[1]}"
    with tempfile.TemporaryDirectory() as folder:
        program, url = start("egress", folder, [], "cache", "many", upstream=place)
        token = url.rsplit("/", 1)[1]
        print(f"before: {resident(program.pid):.1f} MiB")
        for part in range(4):
            send(EGRESS, [f"/{token}/{part}/{n}" for n in range(25_000)])
            print(f"after {part + 1} times 25,000 answers: {resident(program.pid):.1f} MiB", flush=True)
        program.kill()
        program.wait()


def send(address, paths):
    """Gets these one after the other, over one connection."""
    head = "GET {} HTTP/1.1\r\nHost: web\r\nUser-Agent: shop/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
    connection = answers(address)
    replies = connection.makefile("rb")
    for path in paths:
        connection.sendall(head.format(path).encode())
        length = 0
        while (line := replies.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        replies.read(length)
    connection.close()


def instructions(name, requests):
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        program, url = start(name, folder, valgrind)
        address, _, token = url.removeprefix("http://").partition("/")
        send(address, [f"/{token}/path?query=1".replace("//", "/")] * requests)
        program.send_signal(signal.SIGTERM)
        said = program.communicate(timeout=60)[1]
        return int(re.search(r"Collected : (\d+)", said).group(1))


def main():
    build = ["cargo", "build", "--quiet", "--profile", "test-release"]
    subprocess.run([*build, "-p", "evenkeel-proxy", "--example", "standalone", "--example", "bench_upstream"], check=True)
    subprocess.run([*build, "-p", "evenkeel-egress", "--example", "endpoint"], check=True)
    upstream = subprocess.Popen(["taskset", "-c", "1", f"{EXAMPLES}/bench_upstream", UPSTREAM], stdout=subprocess.DEVNULL)
    try:
        answers(UPSTREAM).close()
        if arguments.kept:
            keep()
        elif arguments.instructions:
            for name in ("ingress", "egress"):
                short, long = (instructions(name, requests) for requests in (SHORT, LONG))
                print(f"{name}: {(long - short) / (LONG - SHORT):.0f} instructions per request", flush=True)
        else:
            with tempfile.TemporaryDirectory() as folder:
                measure(folder)
    finally:
        upstream.terminate()
        upstream.wait()


os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/..")
main()
