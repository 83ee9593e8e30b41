import socket
import threading
from collections.abc import Iterator

import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.tuning import tracker as module
from mlc_controlnet.tuning.tracker import Tracker

HOST = "127.0.0.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What listens on a free port."""
    with socket.create_server((HOST, 0)) as listening:
        yield listening


def test_a_tracker_that_is_not_there_is_told_at_once(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(UserError) as caught:
        Tracker(HOST, port, "epyc").take()
    assert str(caught.value) == (
        f"--tracker {HOST}:{port}: got Connection refused, wanted TVM's RPC tracker; "
        f"start it on {HOST}: python -m tvm.exec.rpc_tracker --port {port}"
    )


def test_a_host_that_is_none_is_told() -> None:
    with pytest.raises(UserError, match=r"--tracker nowhere\.invalid:9190: got .*, wanted TVM's RPC tracker"):
        Tracker("nowhere.invalid", 9190, "epyc").count()


@pytest.mark.parametrize(
    "answer,words",
    [(b"HTTP/1.1 400 Bad Request", "something that answers otherwise"), (b"", "something that does not answer as one")],
    ids=["a web server", "silence"],
)
def test_something_else_on_the_port_is_told(
    listener: socket.socket, answer: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    port = listener.getsockname()[1]
    accepted: list[socket.socket] = []

    def serve() -> None:
        connection, _ = listener.accept()
        accepted.append(connection)
        connection.sendall(answer)

    serving = threading.Thread(target=serve)
    serving.start()
    with pytest.raises(UserError, match=words):
        Tracker(HOST, port, "epyc").take()
    serving.join()
    accepted[0].close()
