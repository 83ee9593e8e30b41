"""Stable Diffusion web UI's names for what this project names as diffusers does; TypeScript has them too."""

SAMPLERS = {
    "DPM++ 2M": "dpmpp_2m",
    "DPM++ SDE": "dpmpp_sde",
    "DPM++ 2M SDE": "dpmpp_2m_sde",
    "DPM++ 2S a": "dpmpp_2s",
    "Euler a": "euler_a",
    "Euler": "euler",
    "LMS": "lms",
    "Heun": "heun",
    "DPM2": "dpm2",
    "DPM2 a": "dpm2_a",
    "DDIM": "ddim",
    "DDPM": "ddpm",
    "PLMS": "pndm",
    "UniPC": "unipc",
    "DEIS": "deis",
    "LCM": "lcm",
    "TCD": "tcd",
}
SCHEDULERS = {  # its label -> our schedule type; None: the model's own
    "Automatic": None,
    "Uniform": "linspace",
    "Karras": "karras",
    "Exponential": "exponential",
    "SGM Uniform": "trailing",
    "Beta": "beta",
    "DDIM": "leading",
}
UPSCALERS = {
    "Latent": "bilinear",
    "Latent (nearest)": "nearest",
    "Latent (nearest-exact)": "nearest-exact",
    "Latent (bicubic)": "bicubic",
}
CONTROL_MODES = {
    "Balanced": "balanced",
    "My prompt is more important": "prompt",
    "ControlNet is more important": "control",
}
