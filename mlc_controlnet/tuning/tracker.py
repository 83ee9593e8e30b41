"""Asks TVM's RPC tracker for servers.

The tracker lists the servers of each key and gives one that is free to who asks first. TVM's own client tries for a
minute to reach a tracker that is not there, and waits for ever for a server that is free; this one does neither. All
messages are JSON.
"""

import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode, recvall, recvjson, sendjson

from mlc_controlnet.errors import UserError

ANSWER_SECONDS = 5.0  # that a tracker has to answer
LOOK_SECONDS = 1.0  # between looks whether there still is a server to wait for


@dataclass(frozen=True)
class Place:
    """A server that is ours to connect to, once: by its host and port, with the word that it expects."""

    host: str
    port: int
    word: str

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Tracker:
    """One key of a tracker.

    Attributes:
        host, port: of the tracker.
        key: of the servers.
        patience: seconds to wait for a first server to register.
        long_patience: seconds to wait for one of several servers to become free.
    """

    host: str
    port: int
    key: str
    patience: float = 30.0
    long_patience: float = 600.0

    @property
    def subject(self) -> str:
        """What messages call it: the option."""
        return f"--tracker {self.host}:{self.port}"

    @property
    def server_command(self) -> str:
        """The command that starts a server of the key."""
        return f"python -m tvm.exec.rpc_server --tracker {self.host}:{self.port} --key {self.key}"

    def count(self) -> int:
        """Return how many servers are registered, free or not. Raises UserError if the tracker does not answer."""
        with self._connect() as connection:
            summary = self._talk(connection, [TrackerCode.SUMMARY])
        return [server["key"] for server in summary["server_info"]].count(f"server:{self.key}")

    def take(self) -> Place:
        """Wait for a free server.

        Raises:
            UserError: the tracker does not answer, there is no server, or none has become free.
        """
        began = time.monotonic()
        alone_since = began
        with self._connect() as connection:
            sendjson(connection, [TrackerCode.REQUEST, self.key, "", 1])
            while not select.select([connection], [], [], LOOK_SECONDS)[0]:
                now, servers = time.monotonic(), self.count()
                if servers:
                    alone_since = now
                if now - alone_since > self.patience:
                    got = f"no server of the key {self.key} in {self.patience:.0f} s"
                    raise UserError(self.subject, got, "one or more", f"start one: {self.server_command}")
                if now - began > self.long_patience:
                    got = f"{servers} servers of the key {self.key}, none of them free in {self.long_patience:.0f} s"
                    remedy = f"wait for who else measures there, or start them again: {self.server_command}"
                    raise UserError(self.subject, got, "a free one", remedy)
            host, port, word = self._talk(connection)
        return Place(host, port, word)

    def _connect(self) -> socket.socket:
        try:
            connection = socket.create_connection((self.host, self.port), timeout=ANSWER_SECONDS)
        except OSError as error:
            raise self._not_there(error.strerror or str(error)) from error
        try:
            connection.sendall(struct.pack("<i", RPC_TRACKER_MAGIC))
            answer = recvall(connection, 4)
        except OSError as error:
            connection.close()
            raise self._not_there("something that does not answer as one") from error
        if answer != struct.pack("<i", RPC_TRACKER_MAGIC):
            connection.close()
            raise self._not_there("something that answers otherwise")
        return connection

    def _talk(self, connection: socket.socket, message: list[object] | None = None) -> Any:
        """Send a message, if there is one, and return what the tracker answers."""
        try:
            if message is not None:
                sendjson(connection, message)
            status, answer = recvjson(connection)
        except (OSError, ValueError, TypeError) as error:
            raise self._not_there("something that stopped answering") from error
        if status != TrackerCode.SUCCESS:
            raise self._not_there(f"the answer {status}")
        return answer

    def _not_there(self, got: str) -> UserError:
        remedy = f"start it on {self.host}: python -m tvm.exec.rpc_tracker --port {self.port}"
        return UserError(self.subject, got, "TVM's RPC tracker", remedy)
