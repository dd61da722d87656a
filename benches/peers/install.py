"""Builds Umbel and the floor, and brings the peers to target/peers: npm packages, crates and Debian packages, pinned.

npm packages and crates are pinned by the lock files beside this file. A Debian release is a pin by itself; its packages
are unpacked and not installed, so that no service is started and nobody needs to be root.
"""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target" / "peers"
SOCKUDO_VERSION = "5.2.0"
BUILD_SECONDS_MAX = 3600


class InstallError(Exception):
    """What cannot be had, and what to do about it."""


def say(text):
    print(f"bench-peers: {text}", flush=True)


def run(command, what, **options):
    """Runs an installer, whose output is shown only if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX, stdin=subprocess.DEVNULL, **options
        )
    except FileNotFoundError:
        raise InstallError(f"{what}: there is no `{command[0]}` here") from None
    if done.returncode != 0:
        output = (done.stdout[-2000:] + done.stderr[-2000:]).strip()
        raise InstallError(f"{what}: `{' '.join(map(str, command))}` failed:\n{output}")
    return done.stdout


def is_stamped(folder, pins):
    stamp = folder / ".pins"
    return stamp.exists() and stamp.read_text() == pins


def stamp(folder, pins):
    (folder / ".pins").write_text(pins)


#: The server to measure, if it is not to be built. Taken out of the environment: a server refuses what it does not know.
GIVEN = os.environ.pop("UMBEL_BIN", None)


def digest(*files):
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def cargo_binary(kind, name):
    """Builds a binary or a bench of this crate in the release profile, and gives its path."""
    command = ["cargo", "build", "--release", f"--{kind}", name, "--message-format=json-render-diagnostics"]
    for line in run(command, f"building {name}", cwd=ROOT).splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return Path(message["executable"])
    raise InstallError(f"building {name}: cargo does not say where it is")


def umbel():
    return Path(GIVEN).resolve() if GIVEN else cargo_binary("bin", "umbel")


def floor():
    return cargo_binary("bench", "floor")


def certificate():
    """A certificate for 127.0.0.1 that is signed by itself, and its key: two files in PEM."""
    folder = TARGET / "certificate"
    files = folder / "certificate.pem", folder / "key.pem"
    if not is_stamped(folder, "P-256"):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "3650", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        run([*command, "-out", files[0], "-keyout", files[1]], "a certificate")
        stamp(folder, "P-256")
    return files


def npm_package(name):
    """Installs what benches/peers/NAME/package-lock.json pins, and gives the folder, with the server in it."""
    source, folder = HERE / name, TARGET / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        shutil.copy(file, folder)
    pins = digest(source / "package-lock.json")
    if not is_stamped(folder, pins):
        say(f"npm packages for {name}")
        run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], f"npm packages for {name}", cwd=folder)
        stamp(folder, pins)
    return folder


def crate_servers():
    """Builds the servers of benches/peers/fastwebsockets, and gives the folder with the binaries."""
    manifest, target = HERE / "fastwebsockets" / "Cargo.toml", TARGET / "servers"
    if not (target / "release" / "tungstenite-server").exists():
        say("fastwebsockets and tokio-tungstenite, which are compiled")
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", target]
    run(command, "building fastwebsockets and tokio-tungstenite")
    return target / "release"


def protoc():
    """Unpacks the compiler of protocol buffers that Sockudo's build needs, and gives the environment that finds it."""
    command = ["apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "protobuf-compiler"]
    dependencies = {line.strip() for line in run(command, "protobuf-compiler").splitlines()}
    libraries = sorted(name for name in dependencies if name.startswith("libproto"))
    usr = debian_package("protobuf-compiler", "libprotobuf-dev", *libraries) / "usr"
    folders = {str(library.parent) for library in usr.glob("lib/**/libproto*.so*")}
    found = {"PROTOC": str(usr / "bin" / "protoc"), "PROTOC_INCLUDE": str(usr / "include")}
    return {**found, "LD_LIBRARY_PATH": ":".join(sorted(folders))}


def sockudo():
    """Installs Sockudo without what it needs for several nodes and databases."""
    binary, pins = TARGET / "bin" / "sockudo", f"sockudo {SOCKUDO_VERSION}, local"
    if not (binary.exists() and is_stamped(TARGET, pins)):
        say(f"Sockudo {SOCKUDO_VERSION}, which is compiled: that takes a while")
        command = ["cargo", "install", "sockudo", "--locked", "--version", SOCKUDO_VERSION]
        command += ["--no-default-features", "--features", "local", "--root", TARGET]
        run(command, "Sockudo", env={**os.environ, **protoc(), "CARGO_TARGET_DIR": str(TARGET / "build")})
        stamp(TARGET, pins)
    return binary


def debian_package(*packages):
    """Unpacks packages of this Debian release into one folder, and gives the folder."""
    folder = TARGET / "debian" / packages[0]
    wanted = " ".join(packages)
    if is_stamped(folder, wanted):
        return folder
    say(f"Debian packages: {wanted}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        run(["apt-get", "download", *packages], wanted, cwd=folder)
    except InstallError as error:
        raise InstallError(f"{error}\nIf the lists of packages are missing: apt-get update") from None
    for archive in folder.glob("*.deb"):
        run(["dpkg-deb", "--extract", archive, folder], wanted)
        archive.unlink()
    stamp(folder, wanted)
    return folder
