"""The page of a server that draws, in a real Chromium without WebGPU: the switch, a picture, and a cancel."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

from mlc_controlnet.cli.main import main
from mlc_controlnet.runtime.png import read_texts
from tests.serve.conftest import serving

HERE = Path(__file__).parent


def test_the_page_draws_on_the_computer_that_serves_it(site, linear_bundle, tmp_path):
    page = shutil.copytree(site, tmp_path / "site")
    entry = {"path": "bundle/", "name": "linear"}  # one for browsers: the page then offers both places
    (page / "models.json").write_text(json.dumps({"format": 1, "models": [entry]}))
    with serving(linear_bundle.path, page=page) as service:
        command = ["node", str(HERE / "draw_on_computer.mjs"), f"{service.address}/", str(tmp_path)]
        played = subprocess.run(command, stdout=subprocess.PIPE, timeout=300, check=True)
        ended = service.queue.ended
    facts = json.loads(played.stdout)

    (tmp_path / "control.png").write_bytes(base64.b64decode(facts["controlImage"]))
    files = ["--control-image", str(tmp_path / "control.png"), "--settings-from", str(tmp_path / "saved.png")]
    assert main(["generate", "--bundle", str(linear_bundle.path), *files, "--output", str(tmp_path / "own.png")]) == 0
    assert (tmp_path / "saved.png").read_bytes() == (tmp_path / "own.png").read_bytes()
    assert json.loads(read_texts((tmp_path / "saved.png").read_bytes())["mlc-controlnet"])["seed"] == "7"
    assert facts["cancelled"] == "Cancelled"
    assert 1 <= ended["linear", "done"] < 500
    assert facts["csp"] == "connect-src 'self'"
    assert "linear" in facts["described"]
