"""Runs torch's work in a second thread while TVM compiles."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Background:
    """One worker thread, which takes its calls in the order in which they were started.

    with Background() as background:
        references = background.start(run_references, checkpoint)
        ...
        compare(references())
    """

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1)

    def __enter__(self) -> "Background":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def start(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
    ) -> Callable[[], Result]:
        """Queue a call, and return a function that waits for its result or raises its exception."""
        return self._worker.submit(function, *arguments, **keywords).result
