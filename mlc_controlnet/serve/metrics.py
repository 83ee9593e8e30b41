"""/healthz for load balancers and /metrics for Prometheus."""

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from mlc_controlnet.serve.job_queue import JobQueue


def metrics_route(queue: JobQueue) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["operation"])
    registry = CollectorRegistry()
    registry.register(_QueueFigures(queue))

    @routes.get("/healthz")
    async def healthz() -> dict[str, Any]:
        """Answer that the server takes requests."""
        return {"status": "ok", "waiting": queue.waiting}

    @routes.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return the server's figures in Prometheus' text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes


class _QueueFigures:
    """The queue's figures, read when they are asked for."""

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue

    def collect(self) -> Iterator[Metric]:
        queue = self.queue
        yield GaugeMetricFamily("mlc_controlnet_waiting", "Jobs that wait", queue.waiting)
        yield GaugeMetricFamily("mlc_controlnet_drawing", "Jobs that are drawn", int(queue.current is not None))
        yield CounterMetricFamily("mlc_controlnet_worker_restarts", "Lost drawing processes", queue.restarts)
        jobs = CounterMetricFamily("mlc_controlnet_jobs", "Jobs that are over", labels=["model", "state"])
        for (model, state), count in queue.ended.items():
            jobs.add_metric([model, state], count)
        yield jobs
        seconds = CounterMetricFamily("mlc_controlnet_drawing_seconds", "Seconds spent drawing", queue.seconds_drawing)
        yield seconds
