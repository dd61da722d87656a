"""A TCP proxy that hands everything on in small pieces, to split frames at every possible place.

Each piece is one send with TCP_NODELAY, in both directions. Ends are handed on as they came: a
half-close as a half-close, a reset as a reset, so that the peers see each other's endings.
"""

import socket
import struct
import threading

RECEIVE_BYTES_MAX = 64 * 1024


class PacedProxy:
    """Listens on a free port of 127.0.0.1 and connects each arrival to `upstream`.

    `piece_bytes` is the size of each send; it may be changed between connections.
    """

    def __init__(self, upstream, piece_bytes):
        self.upstream = upstream
        self.piece_bytes = piece_bytes
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        """The (host, port) that it listens on."""
        return self.listener.getsockname()

    def close(self):
        """Takes no more connections; those that are open run on to their end."""
        self.listener.close()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near):
        try:
            far = socket.create_connection(self.upstream, timeout=5)
        except OSError:
            reset(near)
            near.close()
            return
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        backward = threading.Thread(target=pump, args=(far, near, self.piece_bytes), daemon=True)
        backward.start()
        pump(near, far, self.piece_bytes)
        backward.join()
        near.close()
        far.close()


def pump(source, sink, piece_bytes):
    """Hands `source` on to `sink` until its end, in sends of at most `piece_bytes`."""
    try:
        while received := source.recv(RECEIVE_BYTES_MAX):
            view = memoryview(received)
            for start in range(0, len(view), piece_bytes):
                sink.sendall(view[start : start + piece_bytes])
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # One side is gone: the other has nobody to talk to, and must not wait for it.
        reset(source)
        reset(sink)


def reset(end):
    """Cuts a connection now; its close sends a reset instead of a FIN."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        # Gone already, which is what was asked for.
        return
