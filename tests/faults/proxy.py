"""A TCP proxy between the worker and Kafka: connections can be cut, refused, slowed or left hanging.

Kafka tells its clients where to connect, so the broker has a listener that advertises the proxy's address
(`ApacheKafka.proxied_bootstrap`), and whoever bootstraps there stays with the proxy.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

_BLOCK_BYTES = 1 << 16
_LOOK_S = 0.05
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class Proxy:
    """Forwards `address` to `target`, both host:port, until closed. Two threads per connection."""

    def __init__(self, address: str, target: str) -> None:
        self._target = _parsed(target)
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._refusing = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._delay_s = 0.0
        self._bytes_per_s = float("inf")
        self._closed = False
        self.cuts = 0  # connections cut so far
        self.slowed_bytes = 0  # forwarded while slowed
        self._server = socket.create_server(_parsed(address))
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    # ---- what it does to connections ------------------------------------------------------------------------

    def cut(self) -> None:
        """Every connection of the moment is reset, half-sent answers and all."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            self.cuts += len(pairs)
        for pair in pairs:
            _reset(*pair)

    @contextlib.contextmanager
    def refused(self) -> Iterator[None]:
        """Connections are cut, and new ones too as soon as they stand."""
        self._refusing.set()
        self.cut()
        try:
            yield
        finally:
            self._refusing.clear()

    @contextlib.contextmanager
    def slowed(self, bytes_per_s: float, delay_s: float) -> Iterator[None]:
        """Every block waits, and no connection gets more than so many bytes each way."""
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s
        try:
            yield
        finally:
            self._delay_s, self._bytes_per_s = 0.0, float("inf")

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Connections stay, nothing comes through: as when a firewall drops packets."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def close(self) -> None:
        self._closed = True
        self._flowing.set()
        self._server.close()
        self.cut()

    # ---- the threads ----------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                upstream = socket.create_connection(self._target, timeout=5)
            except OSError:  # the broker is down: so is the way to it
                _reset(client)
                continue
            upstream.settimeout(None)
            with self._lock:
                self._pairs.append((client, upstream))
            if self._refusing.is_set():
                self.cut()
                continue
            for ends in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pump, args=ends, name="proxy", daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """One direction; when it ends, so does the other."""
        with contextlib.suppress(OSError):
            while block := source.recv(_BLOCK_BYTES):
                self._wait(len(block))
                sink.sendall(block)
        with self._lock:
            self._pairs = [pair for pair in self._pairs if source not in pair]
        _reset(source, sink)

    def _wait(self, size_bytes: int) -> None:
        self._flowing.wait()
        wait_s = self._delay_s + size_bytes / self._bytes_per_s
        if wait_s > 0:
            self.slowed_bytes += size_bytes
            time.sleep(wait_s)


def _parsed(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host, int(port)


def _reset(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.shutdown(socket.SHUT_RDWR)
        end.close()
