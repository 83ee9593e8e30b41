import base64
import socket

import pytest

from mlc_controlnet.cli.main import main
from mlc_controlnet.runtime.request import GenerateRequest
from mlc_controlnet.serve.guard import LOOPBACK
from mlc_controlnet.serve.job_queue import JobQueue
from mlc_controlnet.serve.limits import Limits
from mlc_controlnet.serve.worker import Order
from tests.serve.conftest import serving

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def guarded(linear_bundle):
    limits = Limits(body_bytes=1000, body_seconds=0.3)
    options = {"token": TOKEN, "hosts": LOOPBACK, "origins": ["https://example.org"], "limits": limits}
    with serving(linear_bundle.path, **options) as running:
        yield running


def no_worker():
    raise AssertionError("nothing is drawn here")


def basic(password):
    return "Basic " + base64.b64encode(f"user:{password}".encode()).decode()


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)])
def test_the_token_opens(guarded, given):
    assert guarded.ask("GET", "/v1/models", Authorization=given).status == 200


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Bearer", basic("wrong"), "Basic %%%", f"Bearer {TOKEN}x"])
def test_without_the_token_nothing_is_told(guarded, given):
    answer = guarded.ask("GET", "/v1/models", Authorization=given)
    assert answer.status == 401
    assert answer.json()["error"]["subject"] == "token"
    assert "Bearer" in answer.headers["www-authenticate"]


def test_the_web_uis_clients_are_refused_in_their_own_form(guarded):
    refused = guarded.ask("GET", "/sdapi/v1/options")
    assert refused.status == 401
    assert set(refused.json()) == {"error", "detail", "body", "errors"}
    missing = guarded.ask("GET", "/sdapi/v1/none", Authorization=f"Bearer {TOKEN}")
    assert (missing.status, set(missing.json())) == (404, {"error", "detail", "body", "errors"})


def test_an_address_without_a_route_is_told_in_four_parts(guarded):
    answer = guarded.ask("GET", "/v1/none", Authorization=f"Bearer {TOKEN}")
    assert (answer.status, answer.json()["error"]["subject"]) == (404, "address")
    wrong = guarded.ask("PUT", "/v1/models", Authorization=f"Bearer {TOKEN}")
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET")


def test_prompts_are_logged_only_where_the_operator_asks(caplog):
    order = Order("linear", (GenerateRequest(prompt="a secret"),), previews=False)
    for logs_prompts in (False, True):
        JobQueue(no_worker, 8, logs_prompts).submit(order)
        assert ("a secret" in caplog.text) is logs_prompts


def test_a_load_balancer_needs_no_token(guarded):
    assert guarded.ask("GET", "/healthz").json()["status"] == "ok"


def test_another_name_for_this_machine_is_refused(guarded):
    answer = guarded.ask("GET", "/v1/models", Authorization=f"Bearer {TOKEN}", Host="attacker.example")
    assert (answer.status, answer.json()["error"]["subject"]) == (421, "host")


def test_pages_of_other_origins_are_refused_and_named_ones_are_not(guarded):
    def ask(origin):
        return guarded.ask("GET", "/v1/models", Authorization=f"Bearer {TOKEN}", Origin=origin)

    assert ask("https://attacker.example").status == 403
    assert ask("null").status == 403
    assert ask(guarded.address).status == 200
    named = ask("https://example.org")
    assert named.status == 200
    assert named.headers["access-control-allow-origin"] == "https://example.org"


def test_a_named_page_asks_first_without_a_token(guarded):
    headers = {"Origin": "https://example.org", "Access_Control_Request_Method": "POST"}
    assert guarded.ask("OPTIONS", "/v1/generate", **headers).status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(guarded, chunked):
    host, port = guarded.address.removeprefix("http://").split(":")
    head = f"POST /v1/generate HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
    with socket.create_connection((host, int(port))) as client:
        length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 1001"
        body = b"3e9\r\n" + b"x" * 1001 + b"\r\n" if chunked else b""
        client.sendall(f"{head}{length}\r\n\r\n".encode() + body)
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_not_waited_for(guarded):
    host, port = guarded.address.removeprefix("http://").split(":")
    head = f"POST /v1/generate HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 10\r\n\r\n"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 408")


def test_every_answer_is_isolated(guarded):
    headers = guarded.ask("GET", "/healthz").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "0.0.0.0"], "--listen: got no --bundle"),
        (["--listen", "0.0.0.0", "--bundle", "B"], "--listen: got no token, wanted a --token, because everybody"),
        (["--bundle", "B", "--queue", "-1"], "--queue: got -1, wanted 0 or more"),
        (["--bundle", "B", "--token", "short"], "--token: got 5 characters, wanted 16 or more"),
        (["--bundle", "B", "--cors", "example.org"], "--cors: got 'example.org', wanted an origin"),
        (["--bundle", "none"], "none: got no such folder, wanted a bundle"),
    ],
)
def test_a_server_that_would_be_open_or_empty_does_not_start(arguments, message, linear_bundle, capsys):
    filled = [str(linear_bundle.path) if argument == "B" else argument for argument in arguments]
    assert main(["serve", *filled]) == 2
    assert message in capsys.readouterr().err
