import http.client
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.tuning.browser.board import MOST_LOST, Abandoned
from mlc_controlnet.tuning.browser.server import TabServer
from tests.tuning.browser.stub_tab import StubTab

NAMES = [f"candidate {number}" for number in range(8)]


def refuse_software(adapter: Any) -> str:
    return "no software" if adapter.is_software else ""


@pytest.fixture
def server() -> Iterator[TabServer]:
    with TabServer(refuse_software, patience=20) as running:
        yield running


def give(server: TabServer) -> list[Future[Any]]:
    return [server.measure({"name": name}) for name in NAMES]


def names_of(given: list[Future[Any]]) -> list[str]:
    return [one.result(20)["of"] for one in given]


def parallel(tabs: list[StubTab]) -> float:
    """How many jobs were measured at once, on average over the time in which one was."""
    spans = sorted((began, ended) for tab in tabs for began, ended in tab.spans if ended is not None)
    covered = last = 0.0
    for began, ended in spans:
        covered += max(0.0, ended - max(began, last))
        last = max(last, ended)
    return sum(ended - began for began, ended in spans) / covered


@pytest.mark.parametrize(("tabs", "least", "most"), [(1, 0.99, 1.01), (2, 1.7, 2.01)])
def test_two_tabs_measure_nearly_twice_as_many_at_once(server: TabServer, tabs: int, least: float, most: float) -> None:
    """Tabs that sleep stand in for machines that do not compete for cores."""
    stubs = [StubTab(server.address, seconds=0.25) for _ in range(tabs)]
    while len(server.adapters()) < tabs:
        time.sleep(0.01)
    assert names_of(give(server)) == NAMES
    assert least < parallel(stubs) < most
    assert sum(len(stub.spans) for stub in stubs) == len(NAMES)


def test_what_a_tab_that_goes_away_was_measuring_is_measured_by_another(server: TabServer) -> None:
    given = give(server)
    mortal, lasting = StubTab(server.address, 0.02, dies_at=2), StubTab(server.address, 0.02)
    assert names_of(given) == NAMES
    assert len(mortal.spans) == 3 and mortal.spans[-1][1] is None
    assert len(lasting.spans) == len(NAMES) - 2


def test_work_waits_for_a_tab_that_comes_after_the_last_one_went_away(server: TabServer) -> None:
    given = give(server)
    StubTab(server.address, dies_at=3).join()
    assert [one.done() for one in given].count(True) == 3
    StubTab(server.address)
    assert names_of(given) == NAMES


def test_a_tab_that_hangs_is_left_behind_and_its_late_answer_is_not_taken() -> None:
    with TabServer(refuse_software, patience=0.2) as server:
        given = server.measure({"name": "slow"})
        slow = StubTab(server.address, 0.6)
        while not slow.said:
            time.sleep(0.01)
        StubTab(server.address)
        assert given.result(20) == {"of": "slow"}
        slow.join()
        assert slow.answered == [410]


def test_a_candidate_that_takes_devices_down_is_given_up(server: TabServer) -> None:
    given = give(server)
    for _ in range(MOST_LOST):
        StubTab(server.address, dies_at=0, loses=True).join()
    with pytest.raises(Abandoned, match="2 devices were lost while they ran it"):
        given[0].result(20)
    StubTab(server.address)
    assert names_of(given[1:]) == NAMES[1:]


def test_at_the_end_tabs_are_told_and_what_nobody_measured_is_cancelled() -> None:
    with TabServer(refuse_software) as server:
        stub = StubTab(server.address)
        assert server.measure({"name": "first"}).result(20) == {"of": "first"}
        late = StubTab(server.address, 0.1)
        given = [server.measure({"name": name}) for name in NAMES]
    stub.join()
    late.join()
    assert stub.said[-1] == {"kind": "over"}
    assert all(one.done() for one in given)


def test_a_tab_that_may_not_join_is_told_why(server: TabServer) -> None:
    for changed, status, words in (
        ({"is_software": True}, 409, "no software"),
        ({"vendor": 7}, 422, "adapter.vendor"),
        ({"of": "another program"}, 422, "unknown of"),
    ):
        stub = StubTab(server.address, **changed)
        stub.join()
        assert stub.status == status
        assert words in stub.refusal


def ask(server: TabServer, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    address = urlsplit(server.address)
    connection = http.client.HTTPConnection(address.netloc, timeout=20)
    connection.request(method, path, headers=headers)
    return connection.getresponse()


def test_the_page_comes_with_a_strict_policy_and_has_scripts_of_its_own_alone(server: TabServer) -> None:
    path = urlsplit(server.address).path
    page = ask(server, path)
    policy = page.headers["Content-Security-Policy"]
    assert page.status == 200 and policy.startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in policy and "http" not in policy
    text = page.read().decode()
    assert "http://" not in text and "https://" not in text and "<script>" not in text and "style=" not in text
    script = ask(server, f"{path}tab.mjs")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert ask(server, f"{path}..%2Fserver.py").status == 404


def test_who_does_not_know_the_address_or_comes_from_elsewhere_is_refused(server: TabServer) -> None:
    path = urlsplit(server.address).path
    assert ask(server, "/").status == 404
    assert ask(server, "/another-token-of-this-length/").status == 404
    assert ask(server, "/another-token-of-this-length/join", "POST").status == 404
    assert ask(server, path, Host="evil.example:80").status == 421
    assert ask(server, f"{path}join", "POST", Origin="https://evil.example").status == 403
    assert not server.adapters()


def test_every_server_has_another_address_and_a_port_in_use_is_named(server: TabServer) -> None:
    with TabServer(refuse_software) as another:
        assert urlsplit(another.address).path != urlsplit(server.address).path
    port = urlsplit(server.address).port
    with pytest.raises(UserError, match=f"port {port}: got .* wanted a free port"):
        TabServer(refuse_software, port)
