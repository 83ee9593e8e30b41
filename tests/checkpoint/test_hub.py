"""What is asked of the hub, told by a hub of ours: nothing is downloaded."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from mlc_controlnet.checkpoint import find_model, find_weights, model_name
from mlc_controlnet.checkpoint.hub import HubFile, parse_hub_id
from mlc_controlnet.errors import UserError
from mlc_controlnet.train.base import find_base

MODEL_FILES = [
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.bin",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.bin",
    "safety_checker/model.safetensors",
    "v1-5-pruned.ckpt",
]


class Hub:
    """Answers like huggingface_hub and keeps what it was asked."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder = folder
        self.files = files
        self.asked: list[tuple[Any, ...]] = []

    def list_repo_files(self, repo: str, revision: str | None = None) -> list[str]:
        self.asked.append(("list", repo, revision))
        return self.files

    def snapshot_download(self, repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append(("snapshot", repo, revision, allow_patterns))
        return str(self.folder)

    def hf_hub_download(self, repo: str, file: str, revision: str | None = None) -> str:
        self.asked.append(("file", repo, file, revision))
        return str(self.folder / file)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    hub = Hub(tmp_path, MODEL_FILES)
    for name in ("list_repo_files", "snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(hub, name))
    return hub


def test_a_model_is_downloaded_at_its_revision_and_in_its_smallest_form(hub: Hub) -> None:
    assert find_model("org/sd@v1.1") == hub.folder
    assert hub.asked[0] == ("list", "org/sd", "v1.1")
    kind, repo, revision, files = hub.asked[1]
    assert (kind, repo, revision) == ("snapshot", "org/sd", "v1.1")
    assert sorted(files) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.bin",
    ]


def test_a_training_begins_with_weights_that_were_not_rounded(hub: Hub) -> None:
    assert find_base("org/sd") == hub.folder
    assert "unet/diffusion_pytorch_model.safetensors" in hub.asked[1][3]
    assert not any(".fp16." in file for file in hub.asked[1][3])


def test_without_a_revision_the_newest_is_asked_for(hub: Hub) -> None:
    find_model("org/sd")
    assert {question[2] for question in hub.asked} == {None}


def test_one_component_downloads_no_other_weights(hub: Hub) -> None:
    find_model("org/sd", ["text_encoder"])
    assert not any(file.startswith("unet/diffusion") for file in hub.asked[1][3])
    assert "unet/config.json" in hub.asked[1][3]


def test_one_file_of_a_repository_is_downloaded_alone(hub: Hub) -> None:
    path = find_weights("lllyasviel/ControlNet-v1-1/control_v11p_sd15_canny.pth@main", "--controlnet")
    assert path == hub.folder / "control_v11p_sd15_canny.pth"
    assert hub.asked == [("file", "lllyasviel/ControlNet-v1-1", "control_v11p_sd15_canny.pth", "main")]


def test_a_controlnets_repository_gives_its_configuration_and_weights(hub: Hub) -> None:
    hub.files = ["config.json", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors", "images/a.png"]
    assert find_weights("org/canny", "--controlnet") == hub.folder
    assert hub.asked[1][3] == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_a_repository_that_is_no_model_is_told_apart(hub: Hub) -> None:
    hub.files = ["v2-1_768.safetensors"]
    with pytest.raises(UserError, match=r"hub id org/sd: got no model_index\.json.*org/sd/FILE\.safetensors"):
        find_model("org/sd")


def test_a_path_is_never_asked_of_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "sd").mkdir(parents=True)
    (tmp_path / "org" / "sd" / "model_index.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_model("org/sd") == Path("org/sd")
    assert hub.asked == []


@pytest.mark.parametrize("text", ["./org/sd", "/org/sd", "../sd", "sd", "a/b/c/d", "org/sd/notes.txt", "org/sd@"])
def test_what_cannot_be_a_hub_id_is_none(text: str) -> None:
    assert parse_hub_id(text) is None


def test_a_file_may_lie_in_a_folder_of_its_repository() -> None:
    assert parse_hub_id("org/sd/loras/a b.safetensors@refs/pr/1") == HubFile(
        "org/sd", "loras/a b.safetensors", "refs/pr/1"
    )


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (RepositoryNotFoundError, "no such file or folder here, and no such model on the hub"),
        (RevisionNotFoundError, "no such revision"),
        (ConnectionError, "no answer from the hub .offline"),
        (HTTPError, "no answer from the hub .offline"),
    ],
)
def test_the_hubs_answers_are_one_clear_message(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, error: type[Exception], complaint: str
) -> None:
    def fail(repo: str, revision: str | None = None) -> list[str]:
        if not issubclass(error, HfHubHTTPError):
            raise error("offline")
        raise error("404", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(huggingface_hub, "list_repo_files", fail)
    with pytest.raises(UserError, match=rf"hub id org/sd@x: got .*{complaint}"):
        find_model("org/sd@x")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("circles", "circles"),
        ("runs/circles/", "circles"),
        ("/models/v1-5-pruned.safetensors", "v1-5-pruned"),
        ("org/stable-diffusion-2.1@main", "stable-diffusion-2.1"),
        ("org/name/v2-1_768.ckpt", "v2-1_768"),
    ],
)
def test_a_bundle_is_called_as_its_model(model: str, name: str) -> None:
    assert model_name(model) == name
