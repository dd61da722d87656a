"""Takes publications by plain POST /TOPIC and hands them to Sockudo's HTTP API, signed as it asks for.

    signer.py PORT SOCKUDO_PORT

umbel bench cannot sign what it publishes. This process stands beside it on its CPU and is not counted as the server's.
"""

import hashlib
import hmac
import http.client
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

APP_ID, KEY, SECRET = "app", "key", "secret"
BODY_BYTES_MAX = 1 << 20


def signed_path(body):
    """The path of a POST with the query that proves knowledge of the secret."""
    path = f"/apps/{APP_ID}/events"
    digest = hashlib.md5(body).hexdigest()
    query = f"auth_key={KEY}&auth_timestamp={int(time.time())}&auth_version=1.0&body_md5={digest}"
    signature = hmac.new(SECRET.encode(), f"POST\n{path}\n{query}".encode(), hashlib.sha256)
    return f"{path}?{query}&auth_signature={signature.hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.sockudo = http.client.HTTPConnection("127.0.0.1", int(sys.argv[2]), timeout=30)

    def finish(self):
        self.sockudo.close()
        super().finish()

    def do_POST(self):
        length = min(int(self.headers["Content-Length"]), BODY_BYTES_MAX)
        payload = self.rfile.read(length).decode()
        event = {"name": "publication", "channel": self.path[1:], "data": payload}
        body = json.dumps(event).encode()
        self.sockudo.request("POST", signed_path(body), body, {"Content-Type": "application/json"})
        answer = self.sockudo.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format, *arguments):
        """Says nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    server.serve_forever()
