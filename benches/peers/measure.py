"""One measurement: a fresh server, umbel bench against it, and the figures; and the order of all of them."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

import install
from servers import TOPIC

START_SECONDS_MAX = 15
#: Time for a server to end by itself before it is killed.
STOP_SECONDS_MAX = 2
BENCH_SECONDS_MAX = 60
LOG_BYTES_MAX = 600


class MeasureError(Exception):
    """A server that did not start, or a run that gave no figures."""


def cpus(case):
    """The CPUs of the server and of the load generator."""
    available = sorted(os.sched_getaffinity(0))
    if case.is_shared or len(available) == 1:
        both = ",".join(map(str, available[:2]))
        return both, both
    return str(available[0]), str(available[1])


def free_ports(count):
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def process_tree(pid):
    """The process and its descendants."""
    pids = [pid]
    for parent in pids:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as children:
                    pids += map(int, children.read().split())
        except OSError:
            continue
    return pids


@contextmanager
def process(command, log, environment=None):
    """A process in a group of its own, which is ended with all of its children."""
    started = subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        yield started
    finally:
        signal_group(started, signal.SIGTERM)
        try:
            started.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            pass
        finally:
            signal_group(started, signal.SIGKILL)
            started.wait()


def signal_group(started, number):
    try:
        os.killpg(started.pid, number)
    except ProcessLookupError:
        pass


def wait_for_listener(port, started, what):
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if started.poll() is not None:
            raise MeasureError(f"{what} ended with {started.returncode} and did not listen")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise MeasureError(f"{what} did not listen within {START_SECONDS_MAX} s")


def wait_for_processes(started, server):
    """All processes of a server, one of which may have begun to listen before it started the others."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        pids = process_tree(started.pid)
        if len(pids) >= server.processes:
            return pids
        time.sleep(0.02)
    raise MeasureError(f"{server.title} has {len(pids)} of {server.processes} processes")


class Measurer:
    """Measures with one build of umbel bench."""

    def __init__(self, bench, is_quick):
        self.bench = bench
        self.is_quick = is_quick
        #: How each server was started first, by name.
        self.commands = {}

    def measure(self, case, server):
        """The figures of a case, by name, and what went wrong, in words; and the whole reports."""
        folder = install.TARGET / "run" / server.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        server_cpus, load_cpus = cpus(case)
        port, *ports = free_ports(2)
        command, environment = server.command(case, port, folder, ports)
        command = ["taskset", "-c", server_cpus, *command]
        assignments = [f"{name}={value}" for name, value in environment.items()]
        words = shlex.join([*assignments, *map(str, command)])
        self.commands.setdefault(server.name, words.replace(str(port), "PORT"))
        with open(folder / "log", "w") as log:
            try:
                with process(command, log, environment) as started:
                    wait_for_listener(port, started, server.title)
                    pids = wait_for_processes(started, server)
                    with self.companions(server, port, ports, load_cpus, log):
                        reports = self.load(case, server, port, ports, pids, load_cpus)
            except MeasureError as error:
                last = (folder / "log").read_text(errors="replace")[-LOG_BYTES_MAX:]
                return {"figures": {}, "notes": [str(error)], "log": last, "reports": []}
        found = figures(case, reports)
        measured = [figure for figure in case.figures if not figure.is_derived]
        missing = [figure.title for figure in measured if figure.name not in found]
        absent = [f"no {title}: nothing arrived in the time measured" for title in missing]
        return {"figures": found, "notes": notes(reports) + absent, "reports": reports}

    @contextmanager
    def companions(self, server, port, ports, load_cpus, log):
        commands = server.companions(port, ports)
        if not commands:
            yield
            return
        with process(["taskset", "-c", load_cpus, *commands[0]], log) as started:
            wait_for_listener(ports[0], started, f"what stands beside {server.title}")
            yield

    def load(self, case, server, port, ports, pids, load_cpus):
        """Runs umbel bench, and for a storm a canary beside it."""
        mode, arguments = case.arguments(self.is_quick)
        pid = ["--pid", ",".join(map(str, pids))]
        lines = [[mode, *server.load(case, port, ports, TOPIC), *arguments, *pid]]
        if case.kind == "storm":
            mode, arguments = case.canary_arguments(self.is_quick)
            lines.append([mode, *server.load(case, port, ports, "canary"), *arguments])
        commands = [["taskset", "-c", load_cpus, self.bench, "bench", *line, "--json"] for line in lines]
        benches = []
        try:
            for command in commands:
                benches.append(start_bench(command))
            return [report(bench) for bench in benches]
        finally:
            for bench in benches:
                if bench.poll() is None:
                    signal_group(bench, signal.SIGKILL)
                    bench.communicate()


def start_bench(command):
    pipe = subprocess.PIPE
    return subprocess.Popen(
        list(map(str, command)), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def report(bench):
    try:
        out, error = bench.communicate(timeout=BENCH_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise MeasureError(f"no result within {BENCH_SECONDS_MAX} s") from None
    try:
        result = json.loads(out)
    except ValueError:
        raise MeasureError(error.strip().splitlines()[-1] if error.strip() else "umbel bench gave no result") from None
    del result["buckets"]
    return result


def figures(case, reports):
    """What the case is about, out of the reports. A figure that there is not is left out."""
    main = reports[0]
    latency = main["latency_us"] or {}
    match case.kind:
        case "latency":
            found = {name: latency.get(name) for name in ("min", "p50", "p90", "p99", "p999", "max")}
        case "idle" | "tls-idle":
            found = {"bytes": main["server"]["resident_bytes_per_connection"]}
        case "storm":
            canary = reports[1]["latency_us"] or {}
            found = {"cpu": main["server"]["cpu_us_per_message"], "canary_p99": canary.get("p99")}
        case _:
            found = {"cpu": main["server"]["cpu_us_per_message"]}
    return {name: value for name, value in found.items() if value is not None}


def notes(reports):
    """What went wrong, in words."""
    found = []
    for each in reports:
        audit, connections = each["audit"], each["connections"]
        for name in ("lost", "duplicated", "reordered", "misdelivered"):
            if audit[name]:
                found.append(f"{audit[name]:,} of {each['received'] + audit['lost']:,} messages {name}")
        closed = sum(connections["closed"].values())
        if closed:
            found.append(f"{closed:,} connections closed by the server")
        if connections["failed"]:
            found.append(f"{connections['failed']:,} connections failed: {connections['first_failure']}")
        if each["unsent"]:
            found.append(f"{each['unsent']:,} messages that were due could not be sent")
    return found


def rotated(items, by):
    by %= max(len(items), 1)
    return items[by:] + items[:by]


def schedule(cases, servers, repetitions):
    """All measurements in their order: each repetition has all cases, each case all servers, each time rotated."""
    for repetition in range(repetitions):
        for number, case in enumerate(cases):
            able = [server for server in servers if case.kind in server.kinds]
            for server in rotated(able, repetition + number):
                yield repetition, case, server
