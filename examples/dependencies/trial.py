"""Takes each dependency of the shop away in each way, under load, and tells what its users saw.

    /usr/bin/python3 trial.py [--evenkeel PATH] [--short] [--json]

Starts PostgreSQL, Redis and two stubs of an API of its own, in a folder of its own, and evenkeel with the shop; ends all of
it. Debian's packages: postgresql, redis-server, python3-psycopg2, python3-redis.
"""

import argparse
import glob
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--evenkeel", default="evenkeel", help="the program")
arguments.add_argument("--short", action="store_true", help="one way for each dependency")
arguments.add_argument("--json", action="store_true", help="a line of JSON for each")
arguments.add_argument("--rate", type=int, default=20, help="requests per second to each page")
arguments = arguments.parse_args()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(what, holds, limit=60):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            if holds():
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise SystemExit(f"waited in vain for {what}")


def listens(port):
    socket.create_connection(("127.0.0.1", port), 1).close()
    return True


class Part:
    """A program that can be killed, stood still and brought back, with everything it has started."""

    def __init__(self, command, port, user=None):
        self.command, self.port, self.user = command, port, user
        self.start()

    def start(self):
        with open(os.path.join(folder, "parts.log"), "ab") as log:
            become = {"user": self.user.pw_uid, "group": self.user.pw_gid} if self.user else {}
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True, **become
            )
        wait_for(self.command[0], lambda: listens(self.port))

    def tell(self, number):
        # PostgreSQL's backends lead groups of their own.
        for pid in self.family():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def family(self):
        pids = [self.process.pid]
        for pid in pids:
            for children in glob.glob(f"/proc/{pid}/task/*/children"):
                try:
                    pids += [int(child) for child in open(children).read().split()]
                except OSError:
                    pass
        return pids

    def kill(self):
        self.tell(signal.SIGCONT)
        self.tell(signal.SIGKILL)
        self.process.wait()


class Users:
    """Requests to one page at a steady rate, whatever becomes of them."""

    def __init__(self, page):
        self.page, self.seen, self.over = page, [], False
        self.threads = []
        self.thread = threading.Thread(target=self.come)
        self.thread.start()

    def come(self):
        next_one = time.monotonic()
        while not self.over:
            one = threading.Thread(target=self.ask)
            one.start()
            self.threads.append(one)
            next_one += 1 / arguments.rate
            time.sleep(max(0, next_one - time.monotonic()))

    def ask(self):
        began = time.monotonic()
        what = "failed"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", listen, timeout=30)
            connection.request("GET", self.page)
            answer = connection.getresponse()
            body = json.loads(answer.read())
            what = "without" if "without" in body else "instead" if body.get("fallback") else "full"
            if answer.status != 200:
                what = "failed"
            connection.close()
        except (OSError, ValueError, http.client.HTTPException):
            pass
        self.seen.append((began, time.monotonic() - began, what))

    def end(self):
        self.over = True
        self.thread.join()
        for one in self.threads:
            one.join()
        return self.seen


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(os.path.join(folder, "shop", ".evenkeel", "control.sock"))


def breaker(name):
    """The state of a breaker, as evenkeel shows it."""
    connection = Unix("evenkeel")
    connection.request("GET", "/api/v1/services")
    overview = json.loads(connection.getresponse().read())
    connection.close()
    for dependency in overview["dependencies"]:
        if dependency["key"]["name"] == name:
            return dependency["breakers"][0]["state"]["state"]


def evenkeel(*words):
    command = [arguments.evenkeel, "--state", ".evenkeel", *words]
    done = subprocess.run(command, cwd=os.path.join(folder, "shop"), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"evenkeel {' '.join(words)}: {done.stdout}{done.stderr}")


def stutter(part, lasting):
    """Lets it run for a tenth of the time."""
    end = time.monotonic() + lasting
    while time.monotonic() < end:
        part.tell(signal.SIGSTOP)
        time.sleep(2.3)
        part.tell(signal.SIGCONT)
        time.sleep(0.25)


def mode(what):
    urllib.request.urlopen(f"http://127.0.0.1:{ports['9001']}/_mode", what.encode()).read()


def try_one(name, page, fault, take_away, bring_back):
    """Takes a dependency away for some seconds while users come."""
    wait_for(f"{name} to be well", lambda: breaker(name) == "closed")
    users = Users(page)
    time.sleep(2)
    states, over = [], threading.Event()

    def look():
        last = None
        while not over.is_set():
            try:
                now = breaker(name)
            except OSError:
                now = last
            if now != last:
                states.append((time.monotonic(), now))
                last = now
            time.sleep(0.05)

    looking = threading.Thread(target=look)
    looking.start()
    gone = time.monotonic()
    take_away()
    # At least as long as it takes to be noticed.
    wait_for(f"the breaker of {name} to open ({fault})", lambda: any(state == "open" for _, state in states))
    time.sleep(max(0, gone + lasting - time.monotonic()))
    bring_back()
    back = time.monotonic()
    wait_for("the breaker to close", lambda: breaker(name) == "closed" and states[-1][1] == "closed")
    closed = states[-1][0]
    time.sleep(2)
    over.set()
    looking.join()
    seen = users.end()
    opened = next(at for at, state in states if state == "open")
    after = sorted(took for began, took, _ in seen if opened + 1 < began < back)
    count = lambda what: sum(1 for one in seen if one[2] == what)
    return {
        "dependency": name,
        "fault": fault,
        "requests": len(seen),
        "full": count("full"),
        "instead": count("instead"),
        "without": count("without"),
        "failed": count("failed"),
        "slowest_s": round(max(took for _, took, _ in seen), 2),
        "while_open_p99_ms": round(1000 * after[int(0.99 * (len(after) - 1))], 1) if after else None,
        "opened_after_s": round(opened - gone, 2),
        "closed_after_s": round(closed - back, 2),
        "states": " → ".join(f"{state} {at - gone:.1f} s" for at, state in states),
    }


lasting = 4 if arguments.short else 8
folder = tempfile.mkdtemp(prefix="evenkeel-trial.")
os.chmod(folder, 0o755)
parts = []
try:
    ports = {port: free_port() for port in ["8080", "5432", "6379", "9001", "9002"]}
    listen = ports["8080"]
    os.mkdir(os.path.join(folder, "shop"))
    shutil.copy(os.path.join(HERE, "app.py"), os.path.join(folder, "shop"))
    spec = open(os.path.join(HERE, "evenkeel.yaml")).read()
    for port, other in ports.items():
        spec = spec.replace(f":{port}", f":{other}")
    open(os.path.join(folder, "shop", "evenkeel.yaml"), "w").write(spec)
    open(os.path.join(folder, "shop", "openrouter.key"), "w").write("stub-key\n")

    # PostgreSQL refuses to be run by root.
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
    data = os.path.join(folder, "data")
    os.mkdir(data)
    become = {}
    if user:
        os.chown(data, user.pw_uid, user.pw_gid)
        become = {"user": user.pw_uid, "group": user.pw_gid}
    subprocess.run(
        [f"{programs}/initdb", "-U", "postgres", "-A", "trust", "--no-sync", "-D", data],
        check=True, capture_output=True, cwd="/", **become,
    )
    sockets = ["-c", f"unix_socket_directories={data}", "-c", "max_connections=200"]
    database = Part([f"{programs}/postgres", "-D", data, "-p", str(ports["5432"]), *sockets], ports["5432"], user)
    parts.append(database)
    cache = Part(["redis-server", "--port", str(ports["6379"]), "--save", "", "--bind", "127.0.0.1"], ports["6379"])
    parts.append(cache)
    stub = Part([sys.executable, os.path.join(HERE, "stub.py"), str(ports["9001"]), "large-ai"], ports["9001"])
    parts.append(stub)
    parts.append(Part([sys.executable, os.path.join(HERE, "stub.py"), str(ports["9002"]), "small-ai"], ports["9002"]))

    evenkeel("up", "--api", "127.0.0.1:0")
    evenkeel("deploy", "--version", "1.0.0")

    both = [("database", "/orders", database), ("redis", "/visits", cache)]
    trials = []
    for name, page, part in both:
        killed = (name, page, "killed", part.kill, part.start)
        hung = (name, page, "hung", lambda part=part: part.tell(signal.SIGSTOP), lambda part=part: part.tell(signal.SIGCONT))
        slowed = (name, page, "slowed", lambda part=part: stutter(part, lasting), lambda: None)
        trials += [hung] if arguments.short else [killed, hung, slowed]
    modes = [("hung", "hang"), ("slowed", "slow"), ("fails", "fails"), ("stream fails", "stream-error")]
    for fault, what in modes[3:] if arguments.short else modes:
        trials.append(("openrouter", "/chat", fault, lambda what=what: mode(what), lambda: mode("works")))
    if not arguments.short:
        trials.append(("openrouter", "/chat", "killed", stub.kill, stub.start))

    results = []
    for trial in trials:
        results.append(try_one(*trial))
        if arguments.json:
            print(json.dumps(results[-1]), flush=True)
        else:
            print(f"{trial[0]} {trial[2]}: {results[-1]['states']}", file=sys.stderr, flush=True)
    if not arguments.json:
        columns = [name for name in results[0] if name != "states"]
        print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
        for result in results:
            print("| " + " | ".join(str(result[name]) for name in columns) + " |")
finally:
    if os.path.isdir(os.path.join(folder, "shop", ".evenkeel")):
        subprocess.run([arguments.evenkeel, "--state", ".evenkeel", "down"], cwd=os.path.join(folder, "shop"), capture_output=True)
    for part in parts:
        if part.process.poll() is None:
            part.kill()
    shutil.rmtree(folder, ignore_errors=True)
