"""Hands candidates to tabs, each to one tab at a time, and loses none when a tab goes away.

All of it runs on one event loop; the search's thread asks through `TabServer.measure`.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlc_controlnet.tuning.browser.adapter import Adapter

MOST_LOST = 2  # devices that a candidate may take down: it is the candidate's fault
MOST_GONE = 5  # tabs that may go away while they measure it: most are closed by their owner
PATIENCE_SECONDS = 180.0  # for one candidate; a tab that says nothing for so long hangs
Message = Mapping[str, Any]
Answer = Mapping[str, Any]


class Abandoned(Exception):
    """A candidate that no tab could measure; its text is the reason."""


@dataclass(eq=False)
class _Job:
    number: int
    work: Message
    answer: asyncio.Future[Answer]
    lost: int = 0
    gone: int = 0


@dataclass(eq=False)
class Tab:
    """A browser's tab that measures.

    Attributes:
        messages: what it is to be told; None: nothing more.
    """

    id: str
    adapter: Adapter
    messages: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue)
    job: _Job | None = None
    timer: asyncio.TimerHandle | None = None


class Board:
    """The candidates that wait, and the tabs."""

    def __init__(self, refusal: Callable[[Adapter], str], patience: float = PATIENCE_SECONDS) -> None:
        """refusal: says why a tab with that adapter may not join; empty if it may."""
        self.tabs: dict[str, Tab] = {}
        self._refusal = refusal
        self._patience = patience
        self._waiting: deque[_Job] = deque()
        self._count = 0
        self._is_open = True

    async def measure(self, work: Message) -> Answer:
        """Return a tab's answer to `work`, whenever one has it. Raises Abandoned, and CancelledError after the end."""
        if not self._is_open:
            raise asyncio.CancelledError
        self._count += 1
        job = _Job(self._count, work, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._hand_out()
        return await job.answer

    def join(self, adapter: Adapter) -> Tab | str:
        """Return a new tab, or why it may not join."""
        refusal = self._refusal(adapter) if self._is_open else "the search is over"
        if refusal:
            return refusal
        tab = Tab(secrets.token_urlsafe(8), adapter)
        self.tabs[tab.id] = tab
        tab.messages.put_nowait({"kind": "welcome", "tab": tab.id})
        self._hand_out()
        return tab

    def answer(self, tab_id: str, number: int, answer: Answer) -> bool:
        """Take a tab's answer; return False if that tab has nothing to do with that job any more."""
        tab = self.tabs.get(tab_id)
        if tab is None or tab.job is None or tab.job.number != number:
            return False
        job = self._release(tab)
        if job is not None and not job.answer.done():
            job.answer.set_result(answer)
        self._hand_out()
        return True

    def leave(self, tab: Tab, lost_device: bool = False) -> None:
        """Forget a tab. What it was measuring goes to the next one, unless it takes down whoever measures it."""
        if self.tabs.pop(tab.id, None) is None:
            return
        tab.messages.put_nowait(None)
        job = self._release(tab)
        if job is not None and not job.answer.done():
            job.lost += lost_device
            job.gone += not lost_device
            if job.lost >= MOST_LOST:
                job.answer.set_exception(Abandoned(f"{job.lost} devices were lost while they ran it"))
            elif job.gone >= MOST_GONE:
                job.answer.set_exception(Abandoned(f"{job.gone} tabs went away or hung while they ran it"))
            else:
                self._waiting.appendleft(job)
        self._hand_out()

    def close(self) -> None:
        """Tell all tabs that the search is over."""
        self._is_open = False
        for tab in list(self.tabs.values()):
            tab.messages.put_nowait({"kind": "over"})
            self.leave(tab)
        for job in self._waiting:
            job.answer.cancel()

    def _release(self, tab: Tab) -> _Job | None:
        if tab.timer is not None:
            tab.timer.cancel()
        job, tab.job, tab.timer = tab.job, None, None
        return job

    def _hand_out(self) -> None:
        for tab in self.tabs.values():
            while self._waiting and tab.job is None:
                job = self._waiting.popleft()
                if job.answer.done():  # nobody wants it any more
                    continue
                tab.job = job
                tab.messages.put_nowait({"kind": "work", "job": job.number, **job.work})
                tab.timer = asyncio.get_running_loop().call_later(self._patience, self.leave, tab)
