"""The cases: what is asked of the servers, and which figures come out of it."""

from dataclasses import dataclass

#: A CPU changes its speed from second to second here: many short measurements say more than a few long ones.
SECONDS = {"fanout": 0.7, "window": 0.7, "echo": 0.7, "latency": 2.0, "idle": 0.5, "storm": 1.5, "reactors": 0.7}
SECONDS |= {"tls": 0.7, "tls-idle": 0.5}
WARMUP_SECONDS = 0.2
QUICK_SECONDS, QUICK_WARMUP_SECONDS = 0.3, 0.1
#: Connects a second, and publications a second to the canary meanwhile.
STORM_RATE, CANARY_RATE = 1000, 200
#: Publications a second, open loop.
LATENCY_RATE = 1000


@dataclass(frozen=True)
class Figure:
    """A figure that a case gives. Less is better, always."""

    name: str
    title: str
    #: Shown as a ratio to the floor's, or for memory as it is.
    is_ratio: bool = True
    #: Formed of figures of two cases, and not measured by itself.
    is_derived: bool = False


CPU = Figure("cpu", "CPU a message")
CONNECT = Figure("cpu", "CPU a connect")
CANARY = Figure("canary_p99", "p99 of a canary")
P50, P99 = Figure("p50", "p50"), Figure("p99", "p99")
BYTES = Figure("bytes", "resident bytes a connection", is_ratio=False)
ABOVE = Figure("above", "bytes above a plain one", is_ratio=False, is_derived=True)

FIGURES = {"latency": (P50, P99), "idle": (BYTES,), "storm": (CONNECT, CANARY), "tls-idle": (BYTES, ABOVE)}


@dataclass(frozen=True)
class Case:
    name: str
    #: Which servers can do it, and how it is run.
    kind: str
    title: str
    connections: int
    size_bytes: int = 64
    in_flight: int = 1
    #: Part of --quick.
    is_quick: bool = False
    #: The same without TLS, by its name.
    plain: str = ""

    @property
    def figures(self):
        return FIGURES.get(self.kind, (CPU,))

    @property
    def has_publisher(self):
        return self.kind in ("fanout", "window", "latency", "reactors", "tls")

    @property
    def is_tls(self):
        return self.kind in ("tls", "tls-idle")

    @property
    def is_shared(self):
        """Whether the server and the load generator share all CPUs, and have not one each."""
        return self.kind == "reactors"

    def arguments(self, is_quick):
        """The arguments of umbel bench, its mode and how long to measure."""
        seconds = QUICK_SECONDS if is_quick else SECONDS[self.kind]
        warmup = QUICK_WARMUP_SECONDS if is_quick else WARMUP_SECONDS
        mode = {"echo": "echo", "idle": "idle", "tls-idle": "idle", "storm": "storm"}.get(self.kind, "fanout")
        arguments = ["--connections", self.connections, "--warmup", f"{warmup}s", "--duration", f"{seconds}s"]
        match self.kind:
            case "idle" | "tls-idle":
                pass
            case "storm":
                arguments += ["--rate", STORM_RATE]
            case "latency":
                arguments += ["--rate", LATENCY_RATE, "--size", self.size_bytes]
            case _:
                arguments += ["--in-flight", self.in_flight, "--size", self.size_bytes]
        return mode, arguments

    def canary_arguments(self, is_quick):
        """The same for a subscriber that is served beside the storm."""
        seconds = QUICK_SECONDS if is_quick else SECONDS[self.kind]
        warmup = QUICK_WARMUP_SECONDS if is_quick else WARMUP_SECONDS
        arguments = ["--connections", 1, "--warmup", f"{warmup}s", "--duration", f"{seconds}s"]
        return "fanout", [*arguments, "--rate", CANARY_RATE, "--size", self.size_bytes]


def grouped(number):
    return f"{number:,}"


def fanout_cases():
    for connections, name in ((1000, "1k"), (10_000, "10k")):
        for size in (64, 512):
            title = f"{grouped(connections)} subscribers, {size} B"
            yield Case(f"fanout-{name}-{size}", "fanout", title, connections, size, is_quick=connections == 1000)
    for in_flight in (16, 64, 256):
        title = f"1,000 subscribers, 64 B, {in_flight} in flight"
        yield Case(f"window-{in_flight}", "window", title, 1000, 64, in_flight, is_quick=in_flight == 64)


def tls_cases():
    for connections, name in ((1000, "1k"), (10_000, "10k")):
        for size in (64, 512):
            title = f"{grouped(connections)} subscribers, {size} B"
            yield Case(f"tls-{name}-{size}", "tls", title, connections, size)
    yield Case("tls-1k-4k", "tls", "1,000 subscribers, 4 KiB", 1000, 4096)
    yield Case("tls-idle-10k", "tls-idle", "10,000 subscribers", 10_000, plain="idle-10k")


def echo_cases():
    for connections, name in ((64, "64"), (1000, "1k")):
        for size in (20, 512):
            for in_flight in (1, 16):
                title = f"{grouped(connections)} connections, {size} B"
                title += f", {in_flight} in flight" if in_flight > 1 else ""
                suffix = f"-x{in_flight}" if in_flight > 1 else ""
                is_quick = (connections, size) == (64, 20)
                yield Case(f"echo-{name}-{size}{suffix}", "echo", title, connections, size, in_flight, is_quick)
    yield Case("echo-64-16k", "echo", "64 connections, 16 KiB", 64, 16 * 1024, is_quick=True)


CASES = [
    *fanout_cases(),
    *echo_cases(),
    Case("latency", "latency", "1,000 publications a second to 10 subscribers", 10, is_quick=True),
    Case("idle-10k", "idle", "10,000 subscribers", 10_000, is_quick=True),
    Case("idle-19k", "idle", "19,000 subscribers", 19_000),
    Case("storm", "storm", "1,000 connects a second", 200, is_quick=True),
    *tls_cases(),
    Case("reactors", "reactors", "1,000 subscribers, 64 B, all on both CPUs", 1000, is_quick=True),
]

#: What the tables are called, by kind, in their order.
KINDS = {
    "fanout": "Fan-out, one publication in flight",
    "window": "Fan-out, several in flight",
    "echo": "Echo",
    "latency": "Latency of fan-out",
    "idle": "Idle connections",
    "storm": "Connections that come and go",
    "tls": "Fan-out over TLS, one publication in flight",
    "tls-idle": "Idle connections over TLS",
    "reactors": "Two reactors",
}
