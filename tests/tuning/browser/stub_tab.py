"""A tab without a GPU: it speaks the protocol of mlc_controlnet/tuning/browser/server.py, and sleeps for each job."""

import http.client
import json
import threading
import time
from typing import Any
from urllib.parse import urlsplit

ADAPTER = {
    "vendor": "nvidia",
    "architecture": "lovelace",
    "device": "",
    "description": "NVIDIA GeForce RTX 4090",
    "is_software": False,
    "features": ["shader-f16", "timestamp-query"],
}


class StubTab:
    """Joins in a thread of its own.

    Attributes:
        spans: when each of its jobs began and ended, by time.monotonic(); a job that it did not answer has no end.
        said: the messages it got.
        status: of the answer to its `join`, and refusal: its text, if that was no success.
        answered: the statuses that its answers got.
    """

    def __init__(
        self, address: str, seconds: float = 0.0, dies_at: int = -1, loses: bool = False, **adapter: Any
    ) -> None:
        """dies_at: the job, counted from 0, at which it goes away without a word, or with `loses` loses its device."""
        self.spans: list[tuple[float, float | None]] = []
        self.said: list[dict[str, Any]] = []
        self.status, self.refusal = 0, ""
        self.answered: list[int] = []
        self._address = urlsplit(address)
        self._seconds, self._dies_at, self._loses = seconds, dies_at, loses
        self._adapter = {**ADAPTER, **adapter}
        self._thread = threading.Thread(target=self._take_part, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def ask(self, path: str, body: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._address.netloc, timeout=20)
        connection.request("POST", self._address.path + path, json.dumps(body), {"Content-Type": "application/json"})
        return connection, connection.getresponse()

    def _take_part(self) -> None:
        connection, joined = self.ask("join", self._adapter)
        self.status = joined.status
        if joined.status != 200:
            self.refusal = joined.read().decode()
            return
        tab = ""
        while line := joined.readline():
            message = json.loads(line)
            self.said.append(message)
            if message["kind"] == "welcome":
                tab = message["tab"]
            if message["kind"] != "work":
                continue
            began = time.monotonic()
            time.sleep(self._seconds)
            dies = len(self.spans) == self._dies_at
            self.spans.append((began, None if dies else time.monotonic()))
            if dies and not self._loses:
                break
            answer = {"lost": "the driver was updated"} if dies else {"of": message.get("name")}
            asked, answered = self.ask("answer", {"tab": tab, "job": message["job"], "answer": answer})
            self.answered.append(answered.status)
            asked.close()
        joined.close()
        connection.close()
