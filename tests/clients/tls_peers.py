"""Peers that break TLS, by tlslite-ng, against a server of their own. After each of them it serves as before.

Run by tests/clients/run. Closes with `N passed, N failed`.
"""

import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tlslite.api import HandshakeSettings, TLSConnection
from tlslite.constants import AlertDescription, AlertLevel, KeyUpdateMessageType
from tlslite.errors import TLSAbruptCloseError, TLSClosedConnectionError, TLSRemoteAlert
from tlslite.messages import Alert, ApplicationData, ClientHello



ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("UMBEL_BIN", str(ROOT / "target/release/umbel"))
DEADLINE_S = 15
REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
VERSIONS = {"1.2": (3, 3), "1.3": (3, 4)}
# What a peer sees of a connection that the server has ended for its fault.
ENDED = (TLSRemoteAlert, TLSAbruptCloseError, TLSClosedConnectionError, ConnectionError)


def write_certificate(folder):
    """Files of a certificate for localhost, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = Path(folder) / "certificate.pem", Path(folder) / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


class Reframing:
    """A socket whose first send, the hello, is changed by a function."""

    def __init__(self, stream, change):
        self.stream, self.change = stream, change

    def sendall(self, record):
        change, self.change = self.change, None
        self.stream.sendall(change(record) if change else record)

    def send(self, record):
        self.sendall(record)
        return len(record)

    def __getattr__(self, name):
        return getattr(self.stream, name)


class Peers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        files = ",".join(map(str, write_certificate(cls.folder.name)))
        environment = {name: text for name, text in os.environ.items() if not name.startswith("UMBEL_")}
        flags = ["--publish", "anyone", "--subscribe", "anyone", "--observe", "anyone", "--origin", "any"]
        arguments = [BINARY, "serve", "--listen", "https://127.0.0.1:0", "--certificate", files, *flags]
        arguments += ["--log-format", "json"]
        cls.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
        for line in cls.process.stderr:
            words = json.loads(line)["message"]
            if words.startswith("listening on https://"):
                cls.port = int(words.split()[2].rpartition(":")[2])
                return
        raise AssertionError(f"the server ended with {cls.process.wait()}")

    @classmethod
    def tearDownClass(cls):
        cls.process.send_signal(signal.SIGTERM)
        cls.process.wait(DEADLINE_S)
        cls.process.stderr.close()
        cls.folder.cleanup()

    def tearDown(self):
        self.assertTrue(self.get(self.connect()).startswith(b"HTTP/1.1 200"), "it serves as before")

    def socket(self):
        stream = socket.create_connection(("127.0.0.1", self.port), DEADLINE_S)
        self.addCleanup(stream.close)
        return stream

    def connect(self, version=(3, 4), change=None):
        stream = self.socket()
        connection = TLSConnection(Reframing(stream, change) if change else stream)
        settings = HandshakeSettings()
        settings.minVersion, settings.maxVersion = (3, 3), version
        connection.handshakeClientCert(settings=settings, serverName="localhost")
        return connection

    def get(self, connection):
        connection.write(REQUEST)
        return bytes(connection.read(min=1, max=10_000))

    def each_version(self):
        for name, version in VERSIONS.items():
            with self.subTest(version=name):
                yield version

    def send(self, connection, message):
        for _ in connection._sendMsg(message, False):
            pass

    def ends(self, act):
        """The peer is told that it is over, and not kept waiting."""
        try:
            answer = act()
        except ENDED as error:
            return error
        self.assertFalse(answer, "no answer comes")
        return None

    def test_records_of_one_byte(self):
        for version in self.each_version():
            connection = self.connect(version)
            for byte in REQUEST:
                connection.write(bytes([byte]))
            self.assertTrue(bytes(connection.read(min=1, max=1000)).startswith(b"HTTP/1.1 200"))

    def test_empty_records(self):
        for version in self.each_version():
            connection = self.connect(version)
            for _ in range(20):
                self.send(connection, ApplicationData().create(bytearray()))
            self.assertTrue(self.get(connection).startswith(b"HTTP/1.1 200"))

    def test_flood_of_empty_records(self):
        for version in self.each_version():
            connection = self.connect(version)

            def flood():
                for _ in range(20_000):
                    self.send(connection, ApplicationData().create(bytearray()))
                return self.get(connection)

            # They cost their sender as much; either end is good.
            try:
                self.assertTrue(flood().startswith(b"HTTP/1.1 200"))
            except ENDED:
                pass

    def test_data_behind_an_alert(self):
        for version in self.each_version():
            for level, description in [
                (AlertLevel.fatal, AlertDescription.internal_error),
                (AlertLevel.warning, AlertDescription.close_notify),
            ]:
                connection = self.connect(version)
                self.send(connection, Alert().create(description, level))
                self.ends(lambda: self.get(connection))

    def test_user_canceled_is_passed_over(self):
        for version in self.each_version():
            connection = self.connect(version)
            self.send(connection, Alert().create(AlertDescription.user_canceled, AlertLevel.warning))
            self.assertTrue(self.get(connection).startswith(b"HTTP/1.1 200"))

    def test_flood_of_warnings(self):
        for version in self.each_version():
            connection = self.connect(version)

            def flood():
                for _ in range(5000):
                    self.send(connection, Alert().create(AlertDescription.no_renegotiation, AlertLevel.warning))
                return self.get(connection)

            self.ends(flood)

    def test_half_close_gets_its_answer(self):
        for version in self.each_version():
            connection = self.connect(version)
            connection.write(REQUEST)
            self.send(connection, Alert().create(AlertDescription.close_notify, AlertLevel.warning))
            self.assertTrue(bytes(connection.read(min=1, max=1000)).startswith(b"HTTP/1.1 200"))

    def test_what_is_no_record(self):
        for version in self.each_version():
            for record in [b"\xff" * 64, b"\x17\x03\x03" + (16_384 + 257).to_bytes(2, "big") + b"x" * (16_384 + 257)]:
                connection = self.connect(version)
                connection.sock.sendall(record)
                self.assertIsInstance(self.ends(lambda: connection.read(min=1, max=100)), TLSRemoteAlert)

    def test_key_updates(self):
        connection = self.connect()
        for _ in range(10):
            for _ in connection.send_keyupdate_request(KeyUpdateMessageType.update_requested):
                pass
        self.assertTrue(self.get(connection).startswith(b"HTTP/1.1 200"))

    def test_flood_of_key_updates(self):
        for kind in [KeyUpdateMessageType.update_requested, KeyUpdateMessageType.update_not_requested]:
            connection = self.connect()

            def flood():
                for _ in range(5000):
                    for _ in connection.send_keyupdate_request(kind):
                        pass
                return self.get(connection)

            self.ends(flood)

    def test_renegotiation(self):
        connection = self.connect((3, 3))
        hello = ClientHello().create((3, 3), bytearray(32), bytearray(0), [0xC02B, 0xFF])
        self.send(connection, hello)
        self.send(connection, hello)
        self.ends(lambda: self.get(connection))

    def test_hello_in_records_of_one_byte(self):
        def change(record):
            return b"".join(b"\x16\x03\x01\x00\x01" + bytes([byte]) for byte in record[5:])

        self.assertTrue(self.get(self.connect(change=change)).startswith(b"HTTP/1.1 200"))

    def test_two_hellos(self):
        self.ends(lambda: self.get(self.connect(change=lambda record: record + record)))

    def test_half_a_hello(self):
        stream = self.socket()
        stream.sendall(b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc")
        stream.shutdown(socket.SHUT_WR)
        self.assertEqual(stream.recv(100), b"")


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed", flush=True)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
