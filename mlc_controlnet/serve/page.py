"""The demo page of a server that draws: its list of models says where the service is."""

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from mlc_controlnet.site.models_file import MODELS_NAME

SERVICE = "./v1/"  # of the page's address


def mount_page(app: FastAPI, folder: Path) -> None:
    """Serve the built page in `folder`, below every other route."""

    @app.get(f"/{MODELS_NAME}", include_in_schema=False)
    def list_of_models() -> dict[str, Any]:
        path = folder / MODELS_NAME
        listed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"format": 1, "models": []}
        return {**listed, "service": SERVICE}

    app.mount("/", StaticFiles(directory=folder, html=True))
