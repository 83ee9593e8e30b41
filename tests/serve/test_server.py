"""Ctrl+C at a server that answers a request, in a process of its own."""

import http.client
import queue
import signal
import subprocess
import sys
import threading
import time

import pytest

# Answers never; its lifespan says that it was ended. A shell's background job ignores Ctrl+C.
SERVER = """
import asyncio, contextlib, signal, socket, sys
from mlc_controlnet.serve import listen

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("ended", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
    else:
        print("asked", flush=True)
        await asyncio.sleep(600)

signal.signal(signal.SIGINT, signal.default_int_handler)
with listen.open_socket(None, 0) as listening:
    print(listening.getsockname()[1], flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        listen.run_server(app, listening)
"""


@pytest.mark.parametrize("requests", [1, 2])
def test_ctrl_c_says_what_it_waits_for_and_the_second_one_ends_at_once(requests: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            port = int(process.stdout.readline())
            answers = ask(port, requests)
            assert [process.stdout.readline() for _ in range(requests)] == ["asked\n"] * requests
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == "\n"
            told = process.stderr.readline()
            pressed = time.monotonic()
            process.send_signal(signal.SIGINT)
            ended, rest = process.communicate(timeout=60)
        finally:
            process.kill()
    count = {1: "1 request", 2: "2 requests"}[requests]
    assert told == f"waiting up to 5 s for the answers to {count}; Ctrl+C again ends at once\n"
    assert (ended, rest, process.returncode) == ("ended\n", "", 0)
    assert time.monotonic() - pressed < 4, "on a busy machine, but before the five seconds are over"
    assert [answers.get(timeout=60) for _ in range(requests)] == [503] * requests


def ask(port: int, count: int) -> "queue.Queue[int]":
    """Send requests; their status comes into the queue, 0 for a broken connection."""
    answers: queue.Queue[int] = queue.Queue()
    for _ in range(count):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/")

        def wait(connection: http.client.HTTPConnection = connection) -> None:
            try:
                answers.put(connection.getresponse().status)
            except (OSError, http.client.HTTPException):
                answers.put(0)

        threading.Thread(target=wait, daemon=True).start()
    return answers
