"""The process of Node that plays scenarios: Playwright is loaded once, and Chromium started once, for most of them."""

import json
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any

TIMEOUT_S = 1800  # one scenario, on a software adapter that shares its cores
CLOSING_S = 60  # Chromium


class ScenarioFailed(AssertionError):
    pass


class Player:
    """Plays scenarios of scenarios.mjs, one at a time. The process starts with the first, and again after its end.

    log: an open file, which gets what the process complains about.
    """

    def __init__(self, log: IO[str]) -> None:
        self._node: subprocess.Popen[str] | None = None
        self._log = log

    def __enter__(self) -> "Player":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._node is None:
            return
        try:
            self._node.communicate(timeout=CLOSING_S)  # the end of its input is the end of its work
        except subprocess.TimeoutExpired:
            self._node.kill()

    def play(self, call: dict[str, Any]) -> dict[str, Any]:
        """Return the facts of one call, as play_scenarios.mjs takes it. Raises ScenarioFailed."""
        node = self._started()
        assert node.stdin is not None and node.stdout is not None
        late = threading.Timer(TIMEOUT_S, node.kill)
        late.start()
        try:
            node.stdin.write(json.dumps(call) + "\n")
            node.stdin.flush()
            line = node.stdout.readline()
        finally:
            late.cancel()
        if not line:
            node.wait()
            self._log.seek(0)
            raise ScenarioFailed(f"Node ended with code {node.returncode}:\n{self._log.read()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ScenarioFailed(answer["error"])
        facts: dict[str, Any] = answer["facts"]
        return facts

    def _started(self) -> "subprocess.Popen[str]":
        if self._node is None or self._node.poll() is not None:
            command = ["node", str(Path(__file__).parent / "play_scenarios.mjs")]
            self._node = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
            )
        return self._node
