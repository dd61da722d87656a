"""The servers: how each is installed, started, spoken to, and what is said of its configuration.

Every server listens on 127.0.0.1 and has one thread, or one worker, for connections where that can be set. `kinds` are
the kinds of cases (cases.py) that it can do.
"""

import re
import subprocess

import install

#: How to say where to publish and subscribe, for servers that name the topic in the path.
TOPIC = "{topic}"
EVERY_KIND = {"fanout", "window", "echo", "latency", "idle", "storm"}
TLS_KINDS = {"tls", "tls-idle"}
SUBSCRIBING_KINDS = EVERY_KIND - {"echo"}


def output_of(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=20)
    return (done.stdout + done.stderr).strip()


def version_in(text):
    """The first thing that looks like a version."""
    found = re.search(r"\d+\.\d+[\w.+:~-]*", text)
    return found.group() if found else text


def locked_version(lock, package):
    """The version of a crate in a Cargo.lock."""
    found = re.search(rf'name = "{package}"\nversion = "([^"]+)"', lock.read_text())
    return found.group(1)


def filled_in(template, folder, values):
    """Writes a configuration with its @PLACES@ filled in, and gives its path."""
    text = template.read_text()
    for place, value in values.items():
        text = text.replace(f"@{place}@", str(value))
    path = folder / template.name
    path.write_text(text)
    return path


class Server:
    """What is the same for those that name topics by path and echo on /echo."""

    name = title = says = ""
    kinds = EVERY_KIND
    processes = 1
    #: Measured only if it is asked for, for it takes long to build.
    is_optional = False
    #: The server that is this one without TLS, if it is another.
    plain = ""
    #: Its configuration and code, as the page names them, below benches/peers.
    files = ()

    def install(self):
        """Makes it ready to start; `self.binary` or `self.folder` is there afterwards."""

    def version(self):
        return version_in(output_of(self.binary, "--version"))

    def command(self, case, port, folder, ports):
        """The command line that starts it, and what its environment has more."""
        raise NotImplementedError

    def companions(self, port, ports):
        """Commands of processes that stand beside the load generator, and do not count as the server's."""
        return []

    def load(self, case, port, ports, topic):
        """The URL, and what umbel bench is to be told of the protocol."""
        path = "/echo" if case.kind == "echo" else f"/ws/{topic}"
        return location(case, port, path)


def location(case, port, path):
    """The URL, and that the certificate is not to be looked at."""
    return [f"wss://127.0.0.1:{port}{path}", "--insecure-tls"] if case.is_tls else [f"ws://127.0.0.1:{port}{path}"]


class Floor(Server):
    name, title = "floor", "floor"
    says = "benches/floor.rs: one send each and nothing else; `--coalesce` for more than one in flight; over TLS it seals before"
    kinds = EVERY_KIND | TLS_KINDS | {"reactors"}

    def install(self):
        self.binary = install.floor()

    def version(self):
        return ""

    def command(self, case, port, folder, ports):
        coalesce = ["--coalesce"] if case.kind == "window" else []
        tls = ["--tls", *install.certificate()] if case.is_tls else []
        return [self.binary, "--listen", f"127.0.0.1:{port}", *coalesce, *tls], {}

    def load(self, case, port, ports, topic):
        # It has only one topic, of which connections that come and go must not be part.
        path = "/echo" if case.kind == "echo" or (case.kind == "storm" and topic == TOPIC) else f"/ws/{topic}"
        return location(case, port, path)


class FloorRustls(Floor):
    name, title, plain = "floor-rustls", "floor, rustls", "floor"
    says = "the floor with a buffered rustls connection in place of sealing: `write` and `write_tls`"
    kinds = TLS_KINDS

    def command(self, case, port, folder, ports):
        command, environment = super().command(case, port, folder, ports)
        return [*command, "--rustls"], environment


class Umbel(Server):
    name, title, reactors = "umbel", "Umbel", 1
    says = "`umbel serve --reactors 1`, all limits as they are by default"
    kinds = EVERY_KIND | TLS_KINDS | {"reactors"}
    records = "own"

    def install(self):
        self.binary = install.umbel()

    def command(self, case, port, folder, ports):
        scheme = "https://" if case.is_tls else ""
        listen = f"{scheme}127.0.0.1:{port}"
        arguments = ["serve", "--listen", listen, "--reactors", self.reactors, "--log-level", "warn"]
        if case.is_tls:
            # With TLS nothing is open by itself.
            arguments += ["--certificate", ",".join(map(str, install.certificate())), "--tls-records", self.records]
            arguments += ["--publish", "anyone", "--subscribe", "anyone", "--origin", "any"]
        return [self.binary, *arguments], {}


class UmbelPlain(Umbel):
    name, title = "umbel-plain", "Umbel, no io_uring"
    says = "`umbel serve --reactors 1 --io-uring false`"
    kinds = {"fanout", "tls"}

    def command(self, case, port, folder, ports):
        command, environment = super().command(case, port, folder, ports)
        return [*command, "--io-uring", "false"], environment


class UmbelRustls(Umbel):
    name, title, plain, records = "umbel-rustls", "Umbel, rustls", "umbel", "rustls"
    says = "`umbel serve --reactors 1 --tls-records rustls`"
    kinds = TLS_KINDS


class UmbelTwo(Umbel):
    name, title, reactors = "umbel-2", "Umbel, two reactors", 2
    says = "`umbel serve --reactors 2`"
    kinds = {"reactors"}


class Bun(Server):
    name, title = "bun", "Bun"
    says = "Bun.serve with its own topics (uWebSockets); no compression"
    kinds = EVERY_KIND | TLS_KINDS
    files = ("bun/server.ts",)

    def install(self):
        self.folder = install.npm_package("bun")
        self.binary = self.folder / "node_modules" / ".bin" / "bun"

    def command(self, case, port, folder, ports):
        certificate = install.certificate() if case.is_tls else ()
        return [self.binary, self.folder / "server.ts", port, *certificate], {}


class Ws(Server):
    name, title = "ws", "npm ws"
    says = "on Node.js, with bufferutil; no compression"
    files = ("ws/server.js",)

    def install(self):
        self.folder = install.npm_package("ws")
        self.binary = "node"

    def version(self):
        package = (self.folder / "node_modules" / "ws" / "package.json").read_text()
        version = re.search(r'"version": "([^"]+)"', package).group(1)
        return f"{version} on Node.js {version_in(output_of('node', '--version'))}"

    def command(self, case, port, folder, ports):
        return ["node", self.folder / "server.js", port], {}


class CrateServer(Server):
    crate = ""

    def install(self):
        self.binary = install.crate_servers() / f"{self.name}-server"

    def version(self):
        lock = install.HERE / "fastwebsockets" / "Cargo.lock"
        return f"{locked_version(lock, self.crate)} on tokio {locked_version(lock, 'tokio')}"

    def command(self, case, port, folder, ports):
        return [self.binary, f"127.0.0.1:{port}"], {}


class Fastwebsockets(CrateServer):
    name, title, crate = "fastwebsockets", "fastwebsockets", "fastwebsockets"
    says = "tokio on one thread; a task and a broadcast channel for each subscriber"
    files = ("fastwebsockets/src/fastwebsockets.rs",)


class Tungstenite(CrateServer):
    name, title, crate = "tungstenite", "tokio-tungstenite", "tokio-tungstenite"
    says = "tokio on one thread; a task and a broadcast channel for each subscriber"
    files = ("fastwebsockets/src/tungstenite.rs",)


#: nchan makes /var/lib/nginx/body whatever its configuration says. This lets it, without root and without a trace.
PRIVATE_VAR_LIB = [
    *("unshare", "--map-root-user", "--mount", "sh", "-c"),
    'mount -t tmpfs none /var/lib && mkdir /var/lib/nginx && exec "$@"',
    "sh",
]


class Nchan(Server):
    name, title = "nchan", "nchan"
    says = "nginx with one worker; published to by WebSocket"
    # A master, which only watches, and a worker.
    processes = 2
    kinds = SUBSCRIBING_KINDS
    files = ("nchan/nginx.conf",)

    def install(self):
        self.folder = install.debian_package("nginx", "libnginx-mod-nchan")
        self.binary = self.folder / "usr" / "sbin" / "nginx"

    def version(self):
        module = self.folder / "usr" / "share" / "doc" / "libnginx-mod-nchan" / "changelog.Debian.gz"
        nchan = version_in(output_of("zcat", module).partition(":")[2])
        return f"{nchan} on nginx {version_in(output_of(self.binary, '-v').partition('/')[2])}"

    def command(self, case, port, folder, ports):
        module = self.folder / "usr" / "lib" / "nginx" / "modules" / "ngx_nchan_module.so"
        values = {"MODULE": module, "DIR": folder, "PORT": port}
        configuration = filled_in(install.HERE / "nchan" / "nginx.conf", folder, values)
        return [*PRIVATE_VAR_LIB, self.binary, "-e", "stderr", "-p", folder, "-c", configuration], {}


class Nats(Server):
    name, title = "nats", "nats-server"
    says = "its protocol over WebSocket, GOMAXPROCS=1"
    kinds = SUBSCRIBING_KINDS
    files = ("nats/nats.conf",)

    def install(self):
        self.binary = install.debian_package("nats-server") / "usr" / "sbin" / "nats-server"

    def command(self, case, port, folder, ports):
        values = {"PORT": port, "PLAIN_PORT": ports[0]}
        configuration = filled_in(install.HERE / "nats" / "nats.conf", folder, values)
        return [self.binary, "-c", configuration], {"GOMAXPROCS": "1"}

    def load(self, case, port, ports, topic):
        hello = r'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\n'
        publish = rf"PUB {topic} {case.size_bytes}\r\n{{payload}}\r\n"
        arguments = ["--search-frames", "--hello", hello, "--subscribe", rf"SUB {topic} 1\r\n"]
        if case.has_publisher or topic != TOPIC:
            arguments += ["--publish", publish]
        return [f"ws://127.0.0.1:{port}/", *arguments]


class Sockudo(Server):
    name, title = "sockudo", "Sockudo"
    says = "one worker thread; published to by its HTTP API, through a process that signs the requests"
    is_optional = True
    # Its API takes one publication a request, and the signing process would count into latencies.
    kinds = {"fanout", "idle", "storm"}
    files = ("sockudo/sockudo.toml", "sockudo/signer.py")

    def install(self):
        self.binary = install.sockudo()

    def version(self):
        return install.SOCKUDO_VERSION

    def command(self, case, port, folder, ports):
        configuration = filled_in(install.HERE / "sockudo" / "sockudo.toml", folder, {"PORT": port})
        return [self.binary, "--config", configuration], {"TOKIO_WORKER_THREADS": "1"}

    def companions(self, port, ports):
        return [["python3", install.HERE / "sockudo" / "signer.py", ports[0], port]]

    def load(self, case, port, ports, topic):
        subscribe = '{"event":"pusher:subscribe","data":{"channel":"%s"}}' % topic
        arguments = ["--subscribe", subscribe]
        if case.has_publisher or topic != TOPIC:
            arguments += ["--publish", f"http://127.0.0.1:{ports[0]}/{topic}"]
        return [f"ws://127.0.0.1:{port}/app/key?protocol=7", *arguments]


#: In the order of the tables. The floor, which all are held against, comes first.
SERVERS = [
    Floor(),
    FloorRustls(),
    Umbel(),
    UmbelPlain(),
    UmbelRustls(),
    UmbelTwo(),
    Bun(),
    Ws(),
    Fastwebsockets(),
    Tungstenite(),
    Nchan(),
    Nats(),
    Sockudo(),
]
