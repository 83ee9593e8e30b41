import asyncio
import json
import os
import re
import shutil
import signal
import socket
import threading
import time

import pytest
from starlette.datastructures import FormData

from mlc_controlnet.cli.main import main
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.request import OPTIONS
from mlc_controlnet.serve.app import ServeOptions, create_app
from mlc_controlnet.serve.generate_body import parse_form
from mlc_controlnet.serve.models import read_models
from tests.serve.conftest import open_picture, png, ring, serving

LONG = {"prompt": "red", "control_image": ring(), "num_inference_steps": 150, "num_images_per_prompt": 1000}


def test_a_picture_over_http_is_the_one_that_generate_writes(service, linear_bundle, tmp_path):
    (tmp_path / "ring.png").write_bytes(png())
    files = ["--control-image", str(tmp_path / "ring.png"), "--output", str(tmp_path / "out.png")]
    arguments = ["--bundle", str(linear_bundle.path), "--prompt", "red", "--seed", "7"]
    assert main(["generate", *arguments, *files]) == 0

    answer = service.ask(
        "POST", "/v1/generate", {"prompt": "red", "seed": 7, "control_image": ring()}, Accept="image/png"
    )

    assert answer.status == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.body == (tmp_path / "out.png").read_bytes()


def test_json_brings_the_picture_with_its_settings(service):
    job = service.generate(num_images_per_prompt=2, num_inference_steps=3).json()
    assert job["state"] == "done"
    assert [image["settings"]["seed"] for image in job["images"]] == [7, 8]
    assert set(job["images"][0]["settings"]) == set(OPTIONS)
    assert open_picture(job["images"][0]["image"]).size == (24, 16)


def test_a_notice_comes_with_its_code_for_pages_in_other_languages(service):
    (drawn,) = service.generate(control_image=ring((48, 32)), num_inference_steps=1).json()["images"]
    assert drawn["notices"] == ["control image: 48x32 was scaled to cover 24x16"]
    values = {"subject": "control image", "from": "48x32", "to": "24x16", "how": "covers"}
    assert drawn["notice_codes"] == [{"code": "scaled", "values": values}]


def test_multipart_is_the_same_request(service):
    boundary = "edge"
    parts = [("prompt", b"red", ""), ("seed", b"7", ""), ("control_image", png(), '; filename="ring.png"')]
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"
        for name, value, more in parts
    )
    answer = service.ask(
        "POST",
        "/v1/generate",
        body + f"--{boundary}--\r\n".encode(),
        Content_type=f"multipart/form-data; boundary={boundary}",
    )
    assert answer.json()["images"] == service.generate().json()["images"]


def test_events_tell_the_progress_and_then_the_picture(service):
    body = {"prompt": "red", "seed": 7, "control_image": ring(), "num_inference_steps": 4, "previews": True}
    answer = service.ask("POST", "/v1/generate", body, Accept="text/event-stream")
    events = [part.split("\n") for part in answer.body.decode().strip().split("\n\n")]
    names = [lines[0].removeprefix("event: ") for lines in events]
    datas = [json.loads(lines[1].removeprefix("data: ")) for lines in events]
    assert names[0] == "job"
    assert names[-2:] == ["image", "end"]
    assert set(names[1:-2]) == {"progress"}
    last = datas[-3]
    assert (last["step"], last["steps"]) == (4, 4)
    assert open_picture(last["preview"]).size == (3, 2)
    assert datas[-2]["image"] == service.generate(num_inference_steps=4).json()["images"][0]["image"]


def test_a_job_in_the_background_is_asked_for_by_its_id(service):
    body = {"prompt": "red", "control_image": ring()}
    accepted = service.ask("POST", "/v1/generate", body, Prefer="respond-async")
    assert accepted.status == 202
    job = finished(service, accepted.headers["location"])
    assert (job["state"], len(job["images"])) == ("done", 1)


def test_a_job_in_the_background_tells_its_progress_to_whoever_asks(patient):
    path = patient.ask("POST", "/v1/generate", {**LONG, "previews": True}, Prefer="respond-async").headers["location"]
    job = {}
    until(lambda: job.update(patient.ask("GET", path).json()) or (job["progress"] or {}).get("preview"))
    assert job["progress"]["steps"] == 150
    first = job["progress"]["image"], job["progress"]["step"]
    until(lambda: job.update(patient.ask("GET", path).json()) or job["progress"]["image"] > first[0])
    patient.ask("DELETE", path)


def test_nothing_wakes_the_server_while_nobody_watches_a_picture(service, monkeypatch):
    from mlc_controlnet.serve.job_queue import Worker

    answers = []
    receive = Worker.receive
    monkeypatch.setattr(Worker, "receive", lambda self: answers.append(receive(self)) or answers[-1])
    service.generate(num_inference_steps=9)
    assert [type(answer).__name__ for answer in answers] == ["Drawn", "Ended"]


def test_a_cancelled_job_ends_within_a_step(patient):
    path = patient.ask("POST", "/v1/generate", LONG, Prefer="respond-async").headers["location"]
    cancelled = patient.ask("DELETE", path).json()
    assert cancelled["state"] == "cancelled"
    assert len(cancelled["images"]) < LONG["num_images_per_prompt"]
    assert patient.generate().json()["state"] == "done"


def test_models_are_listed(service):
    (model,) = service.ask("GET", "/v1/models").json()["models"]
    assert model["name"] == "linear"
    assert model["sizes"] == [{"width": 24, "height": 16}]
    assert len(model["controlnets"]) == 1


def test_the_manifest_of_a_model_is_the_bundles(service, linear_bundle):
    answer = service.ask("GET", "/v1/models/linear/manifest")
    assert answer.body == (linear_bundle.path / "manifest.json").read_bytes()
    assert service.ask("GET", "/v1/models/..%2Flinear/manifest").status in (404, 422)


def test_the_page_of_a_service_is_told_where_it_is(linear_bundle, tmp_path):
    (tmp_path / "index.html").write_text("the page")
    (tmp_path / "models.json").write_text('{"format": 1, "models": []}')
    with serving(linear_bundle.path, page=tmp_path) as running:
        assert running.ask("GET", "/models.json").json() == {"format": 1, "models": [], "service": "./v1/"}
        assert running.ask("GET", "/").body == b"the page"


def test_the_description_of_the_interface_needs_no_other_server(service):
    page = service.ask("GET", "/docs").body.decode()
    assert "swagger-ui" in page
    assert "https:" not in page
    (script,) = re.findall(r'<script src="([^"]+)"', page)
    assert service.ask("GET", script).status == 200
    fields = service.ask("GET", "/openapi.json").json()["paths"]["/v1/generate"]["post"]["requestBody"]
    assert set(OPTIONS) < set(fields["content"]["application/json"]["schema"]["properties"])


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ({"prompt": 3}, "prompt"),
        ({"colour": "red"}, "colour"),
        ({"model": "other"}, "model"),
        ({"sampler": "magic"}, "sampler"),
        ({"num_inference_steps": 151}, "num inference steps"),
        ({"num_inference_steps": "many"}, "num_inference_steps"),
        ({"num_images_per_prompt": 17}, "num_images_per_prompt"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"control_image": "%%%"}, "control_image"),
        ({"control_image": "aGVsbG8="}, "control_image"),
        ({"control_image": None}, "control image"),
        ({"annotator": "magic"}, "annotator"),
        ({"latents": [[1], [1, 2]]}, "latents"),
        ({"latents": [1, 2]}, "latents"),
        ({"guidance_scale": 1e999}, "guidance scale"),
    ],
)
def test_what_cannot_be_used_is_answered_with_four_parts(service, change, subject):
    answer = service.generate(**change)
    assert answer.status == 422
    error = answer.json()["error"]
    assert error["subject"].startswith(subject)
    assert all(error[name] for name in ("got", "wanted", "remedy"))


WORDS = [
    ({"colour": "red"}, "colour: got an option that does not exist, wanted one that does; GET /docs lists all options"),
    ({"gidance_scale": 2}, "gidance_scale: got an option that does not exist, wanted one that does; did you mean guid"),
    ({"prompt": 3}, "prompt: got 3, wanted a valid string; GET /docs lists all options"),
    ({"num_images_per_prompt": 0}, "num_images_per_prompt: got 0, wanted greater than or equal to 1; GET /docs"),
]


@pytest.mark.parametrize(("change", "message"), WORDS)
def test_what_is_wrong_with_a_field_is_a_sentence(service, change, message):
    assert service.generate(**change).json()["error"]["message"].startswith(message)


def test_a_missing_prompt_and_a_body_that_is_a_list_are_told(service):
    for body, message in (
        (b"{}", "prompt: got nothing, wanted a value; "),
        (b"[]", "body: got [], wanted a JSON object;"),
    ):
        assert service.ask("POST", "/v1/generate", body).json()["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("eta", "much", "a number"),
        ("seed", "7.5", "an integer"),
        ("original_size", "x", "two integers with a comma between them"),
        ("sigmas", "1;2", "numbers with commas between them"),
        ("guess_mode", "perhaps", "true or false"),
        ("apply_overlay", "perhaps", "true or false"),
    ],
)
def test_a_text_of_a_form_that_is_no_value_is_told_what_it_should_be(name, text, wanted):
    with pytest.raises(UserError, match=f"^{name}: got '{text}', wanted {wanted}; GET /docs lists all options$"):
        asyncio.run(parse_form(FormData([("prompt", "red"), (name, text)])))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(service, body):
    answer = service.ask("POST", "/v1/generate", body)
    assert answer.status == 422
    assert answer.json()["error"]["subject"] == "body"


def test_a_job_that_does_not_exist_is_not_found(service):
    assert service.ask("GET", "/v1/jobs/none").status == 404
    assert service.ask("DELETE", "/v1/jobs/none").status == 404


def test_a_full_queue_says_when_to_come_again(patient):
    paths = [patient.ask("POST", "/v1/generate", LONG, Prefer="respond-async").headers["location"] for _ in range(2)]
    refused = patient.generate()
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    for path in reversed(paths):
        assert patient.ask("DELETE", path).json()["state"] == "cancelled"
    assert patient.generate().status == 200


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_client_that_goes_away_frees_its_place(patient, accept):
    before = patient.queue.ended["linear", "cancelled"]
    host, port = patient.address.removeprefix("http://").split(":")
    body = json.dumps(LONG)
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /v1/generate HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        until(lambda: patient.queue.current is not None)
    until(lambda: patient.queue.current is None)
    assert patient.queue.ended["linear", "cancelled"] == before + 1


def test_a_device_that_a_bundle_has_no_library_for_is_told_before_the_first_request(linear_bundle):
    assert read_models([linear_bundle.path], "llvm").names == ["linear"]
    with pytest.raises(UserError, match=r"libraries: got llvm only, wanted one for --device cuda; leave --device out"):
        read_models([linear_bundle.path], "cuda")


def test_a_bundle_that_was_not_copied_whole_is_told_before_the_first_request(linear_bundle, tmp_path):
    copy = shutil.copytree(linear_bundle.path, tmp_path / "copy")
    (copy / "params" / "00.bin").unlink()
    with pytest.raises(UserError, match=r"params/00.bin: got no such file, wanted \d+ bytes; build the bundle again"):
        read_models([copy])


def test_a_client_that_is_gone_before_its_first_event_leaves_no_job(linear_bundle):
    app = create_app(read_models([linear_bundle.path]), ServeOptions())
    body = json.dumps({"prompt": "red", "control_image": ring()}).encode()
    headers = [(b"accept", b"text/event-stream"), (b"content-type", b"application/json")]
    path = {"path": "/v1/generate", "raw_path": b"/v1/generate", "query_string": b"", "headers": headers}
    scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "POST", "scheme": "http", **path}
    arriving = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive():
        return next(arriving, {"type": "http.disconnect"})

    async def send(message):
        await asyncio.sleep(60)  # as where the connection takes no more

    asyncio.run(app(scope, receive, send))
    assert app.state.queue.waiting == 0
    assert app.state.queue.ended["linear", "cancelled"] == 1


def test_a_drawing_process_that_is_killed_costs_one_answer(patient):
    answers = []
    asking = threading.Thread(target=lambda: answers.append(patient.ask("POST", "/v1/generate", LONG)))
    asking.start()
    until(lambda: patient.queue.current is not None and patient.queue.look(patient.queue.current) is not None)
    os.kill(patient.queue.worker_id, signal.SIGKILL)
    asking.join()
    assert answers[0].status == 500
    assert answers[0].json()["error"]["got"] == "the end of the process that draws"
    assert patient.generate().status == 200
    assert "mlc_controlnet_worker_restarts_total 1.0" in patient.ask("GET", "/metrics").body.decode()


def until(holds, seconds=30.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def finished(service, path):
    job = {}
    until(lambda: job.update(service.ask("GET", path).json()) or job["state"] not in ("waiting", "drawing"))
    return job
