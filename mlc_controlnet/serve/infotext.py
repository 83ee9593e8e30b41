"""The line of settings that Stable Diffusion web UI writes into its pictures, and that many programs read."""

from mlc_controlnet.runtime.request import Settings
from mlc_controlnet.serve.webui_names import SAMPLERS, SCHEDULERS


def infotext(settings: Settings, model: str, sha256: str) -> str:
    """Return the prompts, each on lines of its own, and below them the settings as `Name: value, ...`."""
    lines = [settings.prompt]
    if settings.negative_prompt:
        lines.append(f"Negative prompt: {settings.negative_prompt}")
    values = {
        "Steps": settings.num_inference_steps,
        "Sampler": webui_name(SAMPLERS, settings.sampler),
        "Schedule type": webui_name(SCHEDULERS, settings.schedule_type),
        "CFG scale": f"{settings.guidance_scale:g}",
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
        "Model hash": sha256[:10],
        "Model": model,
    }
    if settings.strength < 1:
        values["Denoising strength"] = f"{settings.strength:g}"
    if settings.clip_skip:
        values["Clip skip"] = settings.clip_skip + 1
    if settings.hires_scale is not None:
        values["Hires upscale"] = f"{settings.hires_scale:g}"
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in values.items())])


def webui_name(names: dict[str, str] | dict[str, str | None], ours: str | None) -> str:
    """Return the web UI's word for one of ours, or ours if it has none."""
    return next((name for name, value in names.items() if value == ours), ours or "")
