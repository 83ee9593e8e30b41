"""Stable Diffusion web UI's interface and its ControlNet extension's, for the clients that speak it.

Covers drawing, progress, interruption, the lists that clients ask for first, and annotation. Errors have that
interface's own form: `{"error": ..., "detail": ..., "body": "", "errors": ...}`.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from mlc_controlnet.runtime.infotext import webui_name, write_infotext
from mlc_controlnet.runtime.png import png_bytes
from mlc_controlnet.runtime.webui_names import SAMPLERS, SCHEDULERS, UPSCALERS
from mlc_controlnet.serve import webui_names
from mlc_controlnet.serve.annotators.named import Annotator
from mlc_controlnet.serve.answers import error_answer, status_of
from mlc_controlnet.serve.generate_body import annotate
from mlc_controlnet.serve.job_queue import Job, JobQueue, State
from mlc_controlnet.serve.limits import Limits
from mlc_controlnet.serve.models import ServedModel, ServedModels
from mlc_controlnet.serve.pictures import from_base64, to_base64
from mlc_controlnet.serve.waiting import wait_for
from mlc_controlnet.serve.webui_body import DrawBody, ImageToImageBody, TextToImageBody, to_requests
from mlc_controlnet.serve.worker import Order

CONTROLNET_VERSION = 2  # of the extension's interface
EMPTY_LISTS = ("sd-vae", "loras", "hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles", "upscalers")


class DetectBody(BaseModel):
    """POST /controlnet/detect."""

    model_config = ConfigDict(extra="ignore")
    controlnet_module: str = "none"
    controlnet_input_images: list[str] = Field(default_factory=list)
    controlnet_images: list[str] = Field(default_factory=list)  # its older name
    controlnet_threshold_a: float | None = None
    controlnet_threshold_b: float | None = None


class Webui:
    """The state that this interface keeps: the options that clients set."""

    def __init__(
        self, models: ServedModels, queue: JobQueue, limits: Limits, annotators: Mapping[str, Annotator]
    ) -> None:
        self.models = models
        self.queue = queue
        self.limits = limits
        self.annotators = annotators
        self.options: dict[str, Any] = {
            "sd_model_checkpoint": title_of(models.models[0]),
            webui_names.CLIP_STOP: 1,
        }

    def model(self, body: DrawBody) -> ServedModel:
        """Return the model that a body or the options name."""
        title = (body.override_settings or {}).get("sd_model_checkpoint") or self.options["sd_model_checkpoint"]
        return self._titled(title)

    def _titled(self, title: object) -> ServedModel:
        """Return the model of a title, or of a name alone. Raises UserError if there is none."""
        return self.models.named(str(title).partition(" [")[0])

    async def draw(self, body: DrawBody, request: Request) -> Response:
        """Draw what a body asks for and answer as the web UI does."""
        model = self.model(body)
        wanted = await asyncio.to_thread(to_requests, body, model, self.options, self.limits, self.annotators)
        for one in wanted.requests:
            model.resolve(one, self.limits)
        job = self.queue.submit(Order(model.name, tuple(wanted.requests), previews=True))
        await wait_for(job, self.queue, request)
        if job.state is State.FAILED:
            assert job.error is not None
            return error_answer(request.url.path, job.error, status_of(job))
        images = [to_base64(drawn.png) for drawn in job.drawn]
        controls = [to_base64(png_bytes(image, {})) for image in wanted.control_images]
        answer = {
            "images": [*images, *controls] if body.send_images else [],
            "parameters": body.model_dump(exclude={"init_images", "mask", "alwayson_scripts", "override_settings"}),
            "info": json.dumps(_info(job, model, body)),
        }
        return JSONResponse(answer)

    def progress(self) -> dict[str, Any]:
        """Return the progress of the job that is drawn now."""
        job = self.queue.current
        progress = None if job is None else self.queue.look(job)
        share = 0.0 if job is None else job.share
        elapsed = 0.0 if job is None or job.started is None else time.time() - job.started
        return {
            "progress": share,
            "eta_relative": elapsed / share - elapsed if share else 0.0,
            "state": {
                "skipped": False,
                "interrupted": False,
                "job": "" if job is None else job.id,
                "job_count": 0 if job is None else len(job.order.requests),
                "job_timestamp": "" if job is None else time.strftime("%Y%m%d%H%M%S", time.localtime(job.created)),
                "job_no": 0 if progress is None else progress.image,
                "sampling_step": 0 if progress is None else progress.step,
                "sampling_steps": 0 if progress is None else progress.steps,
            },
            "current_image": None if progress is None or not progress.preview else to_base64(progress.preview),
            "textinfo": None,
        }

    def set_options(self, options: dict[str, Any]) -> None:
        """Change options. Raises UserError for an unknown model, and for layers that are no number."""
        if "sd_model_checkpoint" in options:
            self._titled(options["sd_model_checkpoint"])
        webui_names.clip_skip(options.get(webui_names.CLIP_STOP))
        self.options |= {name: value for name, value in options.items() if name in self.options}


def webui_routes(webui: Webui) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["Stable Diffusion web UI"])
    for some in (_drawing_routes, _options_routes, _list_routes, _controlnet_routes):
        routes.include_router(some(webui))
    return routes


def _drawing_routes(webui: Webui) -> APIRouter:
    routes = APIRouter(prefix="/sdapi/v1")

    @routes.post("/txt2img", response_model=None)
    async def txt2img(body: TextToImageBody, request: Request) -> Response:
        return await webui.draw(body, request)

    @routes.post("/img2img", response_model=None)
    async def img2img(body: ImageToImageBody, request: Request) -> Response:
        return await webui.draw(body, request)

    @routes.get("/progress")
    async def progress() -> dict[str, Any]:
        return webui.progress()

    @routes.post("/interrupt")
    @routes.post("/skip")
    async def interrupt() -> dict[str, Any]:
        if webui.queue.current is not None:
            webui.queue.cancel(webui.queue.current, keep=True)
        return {}

    return routes


def _options_routes(webui: Webui) -> APIRouter:
    routes = APIRouter(prefix="/sdapi/v1")

    @routes.get("/options")
    async def options() -> dict[str, Any]:
        return webui.options

    @routes.post("/options")
    async def set_options(options: dict[str, Any]) -> dict[str, Any]:
        webui.set_options(options)
        return {}

    return routes


def _list_routes(webui: Webui) -> APIRouter:
    """What clients ask for before they draw; what there is none of here is answered with nothing."""
    routes = APIRouter(prefix="/sdapi/v1")

    @routes.get("/sd-models")
    async def sd_models() -> list[dict[str, Any]]:
        return [_sd_model(model) for model in webui.models.models]

    @routes.get("/samplers")
    async def samplers() -> list[dict[str, Any]]:
        known = webui.models.models[0].samplers.samplers
        names = (name for name, ours in SAMPLERS.items() if ours in known)
        return [{"name": name, "aliases": [SAMPLERS[name]], "options": {}} for name in names]

    @routes.get("/schedulers")
    async def schedulers() -> list[dict[str, Any]]:
        return [{"name": label.lower().replace(" ", "_"), "label": label, "aliases": None} for label in SCHEDULERS]

    @routes.get("/latent-upscale-modes")
    async def latent_upscale_modes() -> list[dict[str, Any]]:
        return [{"name": name} for name in UPSCALERS]

    @routes.get("/scripts")
    async def scripts() -> dict[str, list[str]]:
        names = ["controlnet", "controlnet m2m"]  # by the second one, clients recognise the extension
        return {"txt2img": names, "img2img": names}

    @routes.get("/cmd-flags")
    @routes.get("/memory")
    async def nothing() -> dict[str, Any]:
        return {}

    @routes.get("/embeddings")
    async def embeddings() -> dict[str, Any]:
        return {"loaded": {}, "skipped": {}}

    for name in EMPTY_LISTS:
        routes.add_api_route(f"/{name}", _no_list, methods=["GET"], operation_id=f"list_{name}")
    return routes


def _controlnet_routes(webui: Webui) -> APIRouter:
    routes = APIRouter(prefix="/controlnet", tags=["ControlNet extension"])

    @routes.get("/version")
    async def version() -> dict[str, int]:
        return {"version": CONTROLNET_VERSION}

    @routes.get("/model_list")
    async def model_list() -> dict[str, list[str]]:
        names = (one.name for model in webui.models.models for one in model.manifest.controlnets)
        return {"model_list": list(dict.fromkeys(names))}

    @routes.get("/module_list")
    async def module_list() -> dict[str, Any]:
        modules = ["none", "invert (from white bg & black line)", *webui.annotators]
        return {"module_list": modules, "module_detail": {}}

    @routes.get("/settings")
    async def settings() -> dict[str, int]:
        units = max(len(model.manifest.controlnets) for model in webui.models.models)
        return {"control_net_unit_count": units}

    @routes.post("/detect")
    def detect(body: DetectBody) -> dict[str, Any]:  # in a thread: OpenCV takes its time
        texts = (body.controlnet_input_images or body.controlnet_images)[: webui.limits.pictures]
        pictures = [from_base64(text, "controlnet_input_images", webui.limits) for text in texts]
        name, thresholds = body.controlnet_module, (body.controlnet_threshold_a, body.controlnet_threshold_b)
        found = annotate(pictures, name, webui_names.tuned(webui.annotators, name, *thresholds))
        return {"images": [to_base64(png_bytes(image, {})) for image in found], "info": "Success"}

    return routes


async def _no_list() -> list[Any]:
    return []


def title_of(model: ServedModel) -> str:
    """Return the web UI's title of a model: its name and the start of its hash."""
    return f"{model.name} [{model.bundle.sha256[:10]}]"


def _sd_model(model: ServedModel) -> dict[str, Any]:
    sha256 = model.bundle.sha256
    hashes = {"hash": sha256[:10], "sha256": sha256}
    return {
        "title": title_of(model),
        "model_name": model.name,
        **hashes,
        "filename": model.bundle.path.name,
        "config": None,
    }


def _info(job: Job, model: ServedModel, body: DrawBody) -> dict[str, Any]:
    """Return the web UI's description of the drawn pictures."""
    drawn = [one.settings for one in job.drawn]
    seeds = [one.seed for one in drawn]
    first = drawn[0] if drawn else None
    return {
        "prompt": body.prompt,
        "all_prompts": [one.prompt for one in drawn],
        "negative_prompt": body.negative_prompt,
        "all_negative_prompts": [one.negative_prompt for one in drawn],
        "seed": seeds[0] if seeds else body.seed,
        "all_seeds": seeds,
        "subseed": -1,
        "all_subseeds": [-1] * len(seeds),
        "subseed_strength": 0,
        "width": None if first is None else first.width,
        "height": None if first is None else first.height,
        "sampler_name": None if first is None else webui_name(SAMPLERS, first.sampler),
        "cfg_scale": None if first is None else first.guidance_scale,
        "steps": None if first is None else first.num_inference_steps,
        "batch_size": body.batch_size,
        "sd_model_name": model.name,
        "sd_model_hash": model.bundle.sha256[:10],
        "denoising_strength": body.denoising_strength,
        "clip_skip": 1 if first is None else first.clip_skip + 1,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [write_infotext(one, model.name, model.bundle.sha256) for one in drawn],
        "notices": [notice for one in job.drawn for notice in one.notices],
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(job.created)),
    }
