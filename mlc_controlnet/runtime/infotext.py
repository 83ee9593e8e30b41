"""The settings of a picture as Stable Diffusion web UI writes them into its PNG files, and many programs read them.

Format: modules/infotext_utils.py and modules/processing.py of AUTOMATIC1111/stable-diffusion-webui; the entries of the
ControlNets: internal_controlnet of sd-webui-controlnet; that of guidance rescale: Seshelle/CFG_Rescale_webui.
Twin: web/src/engine/infotext.ts.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from mlc_controlnet.runtime.option_text import json_number
from mlc_controlnet.runtime.prompt_syntax import PLAIN, WEBUI
from mlc_controlnet.runtime.request import Settings, per_controlnet
from mlc_controlnet.runtime.webui_names import CONTROL_MODES, SAMPLERS, SCHEDULERS, UPSCALERS

NEGATIVE_PROMPT = "Negative prompt:"
RESCALE = "CFG Rescale"
_ENTRY = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')  # as web UI has it
_LEAST_ENTRIES = 3  # of a last line that holds settings and no prompt, as web UI counts
_ETA = {"ddim": "Eta DDIM", "tcd": "Eta"}

Names = Mapping[str, str] | Mapping[str, str | None]


def write_infotext(settings: Settings, model: str, sha256: str) -> str:
    """Return the prompts, each on lines of its own, and below them the settings as `Name: value, ...`.

    The line of the negative prompt is always there: ComfyUI reads no picture without it. `sha256` is the bundle's.
    """
    entries = {
        "Steps": str(settings.num_inference_steps),
        "Sampler": webui_name(SAMPLERS, settings.sampler),
        "Schedule type": webui_name(SCHEDULERS, settings.schedule_type),
        "CFG scale": json_number(settings.guidance_scale),
        "Seed": str(settings.seed),
        "Size": f"{settings.width}x{settings.height}",
        "Model hash": sha256[:10],
        "Model": model,
        **_optional_entries(settings),
        **_controlnet_entries(settings),
    }
    line = ", ".join(f"{name}: {_quote(value)}" for name, value in entries.items())
    prompts = (_as_webui(text, settings.prompt_syntax) for text in (settings.prompt, settings.negative_prompt))
    return f"{next(prompts)}\n{NEGATIVE_PROMPT} {next(prompts)}\n{line}"


def read_infotext(text: str) -> tuple[dict[str, Any], list[str]]:
    """Return the options that the text names, with values as a request takes them, and what could not be read.

    Both are empty if it is no such text. An option whose entry is missing or cannot be read is left out.
    """
    lines = text.strip().split("\n")
    entries = _entries_of(lines[-1])
    if len(entries) < _LEAST_ENTRIES or "Steps" not in entries:
        return {}, []
    start = next((i for i, line in enumerate(lines[:-1]) if line.strip().startswith(NEGATIVE_PROMPT)), len(lines) - 1)
    negative = "\n".join(lines[start:-1]).strip().removeprefix(NEGATIVE_PROMPT)
    options: dict[str, Any] = {
        "prompt": "\n".join(lines[:start]).strip(),
        "negative_prompt": negative.strip(),
        "prompt_syntax": WEBUI,
        "num_inference_steps": _number(entries.get("Steps")),
        "guidance_scale": _number(entries.get("CFG scale")),
        "guidance_rescale": _number(entries.get(RESCALE)),
        "seed": _number(entries.get("Seed")),
        "eta": _number(entries.get("Eta DDIM", entries.get("Eta"))),
        "mask_blur": _number(entries.get("Mask blur")),
        "masked_content": entries.get("Masked content"),
    }
    width, by, height = entries.get("Size", "").partition("x")
    if by:
        options |= {"width": _number(width), "height": _number(height)}
    if (clip_skip := _number(entries.get("Clip skip"))) is not None:
        options["clip_skip"] = clip_skip - 1
    if entries.get("Inpaint area") == "Only masked":
        options["padding_mask_crop"] = _number(entries.get("Masked area padding", "32"))
    notices: list[str] = []
    options |= _sampler_of(entries, notices) | _hires_of(entries, notices) | _controlnets_of(entries)
    return {name: value for name, value in options.items() if value is not None}, notices


def webui_name(names: Names, ours: str | None) -> str:
    """Return the web UI's word for one of ours, or ours if it has none."""
    return next((name for name, value in names.items() if value == ours), "" if ours is None else ours)


def _as_webui(prompt: str, syntax: str) -> str:
    """Return a prompt in which brackets mean what they mean to web UI; of a plain prompt they are text."""
    return re.sub(r"[\\()[\]]", r"\\\g<0>", prompt) if syntax == PLAIN else prompt


def _optional_entries(settings: Settings) -> dict[str, str]:
    entries: dict[str, str] = {}
    if settings.hires_scale is not None:
        entries["Denoising strength"] = json_number(settings.hires_strength or 0)
        entries["Hires upscale"] = json_number(settings.hires_scale)
        entries["Hires steps"] = str(settings.hires_steps)
        entries["Hires upscaler"] = webui_name(UPSCALERS, settings.hires_upscaler)
    elif settings.strength < 1:
        entries["Denoising strength"] = json_number(settings.strength)
    if settings.guidance_rescale:
        entries[RESCALE] = json_number(settings.guidance_rescale)
    if settings.clip_skip:
        entries["Clip skip"] = str(settings.clip_skip + 1)
    if settings.eta and settings.sampler in _ETA:
        entries[_ETA[settings.sampler]] = json_number(settings.eta)
    if settings.mask_blur:
        entries["Mask blur"] = json_number(settings.mask_blur)
    if settings.padding_mask_crop is not None:
        entries["Inpaint area"] = "Only masked"
        entries["Masked area padding"] = str(settings.padding_mask_crop)
    if settings.masked_content != "original":
        entries["Masked content"] = settings.masked_content
    return entries


def _controlnet_entries(settings: Settings) -> dict[str, str]:
    count = len(settings.controlnets)
    units = zip(
        settings.controlnets,
        per_controlnet(settings.controlnet_conditioning_scale, count),
        per_controlnet(settings.control_guidance_start, count),
        per_controlnet(settings.control_guidance_end, count),
        per_controlnet(settings.control_mode, count),
        strict=True,
    )
    return {
        f"ControlNet {i}": f"Module: none, Model: {name}, Weight: {json_number(weight)}, Resize Mode: Crop and Resize, "
        f"Guidance Start: {json_number(start)}, Guidance End: {json_number(end)}, Pixel Perfect: True, "
        f"Control Mode: {webui_name(CONTROL_MODES, mode)}"
        for i, (name, weight, start, end, mode) in enumerate(units)
    }


def _sampler_of(entries: Mapping[str, str], notices: list[str]) -> dict[str, Any]:
    """Read the sampler and its schedule. Older pictures have both in one entry: `DPM++ 2M Karras`."""
    name, label = entries.get("Sampler"), entries.get("Schedule type")
    if name is not None and _find(SAMPLERS, name) is None:
        for ending in SCHEDULERS:
            if name.lower().endswith(f" {ending.lower()}"):
                name, label = name[: -len(ending) - 1], ending
    options: dict[str, Any] = {}
    for option, names, value in (("sampler", SAMPLERS, name), ("schedule_type", SCHEDULERS, label)):
        known = None if value is None else _find(names, value)
        if known is not None:
            options[option] = names[known]
        elif value:
            notices.append(f"{option.replace('_', ' ')} {value} is not known here and was left out")
    return options


def _hires_of(entries: Mapping[str, str], notices: list[str]) -> dict[str, Any]:
    """Read the strength: web UI has one entry for the second pass of hires fix and for a picture to start from."""
    strength = _number(entries.get("Denoising strength"))
    scale = _number(entries.get("Hires upscale"))
    if scale is None:
        return {"strength": strength}
    known = _find(UPSCALERS, entries.get("Hires upscaler", "Latent"))
    if known is None:
        notices.append(f"hires upscaler {entries['Hires upscaler']} is not known here: hires fix was left out")
        return {}
    steps = _number(entries.get("Hires steps")) or None  # web UI's 0: as many as the first pass
    return {"hires_scale": scale, "hires_strength": strength, "hires_steps": steps, "hires_upscaler": UPSCALERS[known]}


def _controlnets_of(entries: Mapping[str, str]) -> dict[str, Any]:
    units = [_entries_of(value) for name, value in entries.items() if re.fullmatch(r"ControlNet \d+", name)]
    if not units:
        return {}
    modes = [_find(CONTROL_MODES, unit.get("Control Mode", "Balanced")) or "Balanced" for unit in units]
    return {
        "controlnets": [re.sub(r"\s*\[\w+\]$", "", unit.get("Model", "")) for unit in units],
        "controlnet_conditioning_scale": [_number(unit.get("Weight"), 1) for unit in units],
        "control_guidance_start": [_number(unit.get("Guidance Start"), 0) for unit in units],
        "control_guidance_end": [_number(unit.get("Guidance End"), 1) for unit in units],
        "control_mode": [CONTROL_MODES[mode] for mode in modes],
    }


def _entries_of(line: str) -> dict[str, str]:
    return {name: _unquote(value) for name, value in _ENTRY.findall(line)}


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if re.search("[,\n:]", text) else text


def _unquote(text: str) -> str:
    if not text.startswith('"'):
        return text.strip()
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def _number(text: str | None, default: int | None = None) -> Any:
    """Return a number, an integer where it is one, as JavaScript reads it; `default` for what is none."""
    if text is None or not re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", text.strip()):
        return default
    value = float(text)
    return int(text) if re.fullmatch(r"-?\d+", text.strip()) else int(value) if value.is_integer() else value


def _find(names: Names, name: str) -> str | None:
    wanted = name.lower().replace("_", " ")
    return next((known for known in names if known.lower() == wanted), None)
