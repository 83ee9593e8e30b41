"""The service in several processes, or on several machines, behind Ray Serve's proxy.

    pip install ".[serve]" "ray[serve]>=2.46"
    BUNDLE=$PWD/dist/circles-llvm serve run examples.ray_serve:service

Each replica is a whole service with a queue and a drawing process of its own; Ray starts them, restarts them, spreads
the requests and scales. A picture is one request to one replica, so POST /v1/generate, its events and the web UI's
txt2img and img2img work as from one process. What speaks of earlier requests does not: jobs by their id, progress and
interruption are known to the replica that drew. Ray's proxy listens on this machine only, unless it is told otherwise.
"""

import os
from pathlib import Path

from fastapi import FastAPI
from ray import serve

REPLICAS = int(os.environ.get("REPLICAS", "2"))
CORES = float(os.environ.get("CORES", "1"))  # of each replica


def build_service() -> FastAPI:
    """Return the application; Ray calls this in each replica."""
    from mlc_controlnet.serve.app import ServeOptions, create_app
    from mlc_controlnet.serve.models import read_models

    os.environ.setdefault("TVM_NUM_THREADS", str(max(1, int(CORES))))
    return create_app(read_models([Path(os.environ["BUNDLE"])]), ServeOptions())


@serve.deployment(num_replicas=REPLICAS, ray_actor_options={"num_cpus": CORES}, max_ongoing_requests=9)
@serve.ingress(build_service)
class ControlNetService:
    """One replica."""


service = ControlNetService.bind()
