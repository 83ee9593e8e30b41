"""What is asked of the hub, told by a hub of ours: nothing is downloaded."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from mlc_controlnet.checkpoint import find_model, find_vae, find_weights, load_checkpoint, model_name
from mlc_controlnet.checkpoint.hub import HubFile, parse_hub_id
from mlc_controlnet.checkpoint.locate import find_lora
from mlc_controlnet.errors import UserError
from mlc_controlnet.train.base import find_base
from tests.checkpoint.conftest import Tiny

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


def test_a_model_with_several_controlnets_brings_all(hub: Hub) -> None:
    weights = [f"{folder}/diffusion_pytorch_model.safetensors" for folder in ("controlnet", "controlnet_1")]
    hub.files = [*MODEL_FILES, "controlnet/config.json", "controlnet_1/config.json", *weights]
    find_model("org/sd", components=("controlnet",))
    assert {*weights, "controlnet_1/config.json"} <= set(hub.asked[1][3])


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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Tiny) -> Path:
    """The hub's cache, with a model at two revisions and a ControlNet, on a machine that is offline."""
    first.save_folder(tmp_path / "model")
    first.controlnet.save_pretrained(tmp_path / "controlnet")
    snapshots = {("sd", "main"): "model", ("sd", "v1.1"): "model", ("canny", "main"): "controlnet"}
    for number, ((name, revision), folder) in enumerate(snapshots.items()):
        repository, commit = tmp_path / "cache" / f"models--org--{name}", f"{number:040x}"
        shutil.copytree(tmp_path / folder, repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def test_without_the_hub_its_cache_is_used(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tagged = find_model("org/sd"), find_model("org/sd@v1.1")
    controlnet = find_weights("org/canny", "--controlnet")
    assert [path.name[-1] for path in (model, tagged, controlnet)] == ["0", "1", "2"]
    assert "controlnet" in load_checkpoint(model, controlnets={"canny": controlnet}).parts
    file = find_weights("org/canny/diffusion_pytorch_model.safetensors", "--controlnet")
    assert file == controlnet / "diffusion_pytorch_model.safetensors"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("missing", ["org/other", "org/sd@v9", "org/canny/other.safetensors"])
def test_what_is_not_in_the_cache_is_named_without_the_hub(cache: Path, missing: str) -> None:
    with pytest.raises(UserError, match=rf"hub id {missing}: got .*nor a whole copy .* HF_HUB_OFFLINE is set"):
        find_weights(missing, "--controlnet")


def test_a_hub_that_does_not_answer_gives_a_notice(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("list_repo_files", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, fail)
    assert find_model("org/sd").name[-1] == "0"
    assert "notice: hub id org/sd: the hub does not answer, so the copy in its cache is used" in capsys.readouterr().err


def test_shards_are_downloaded_with_their_index(hub: Hub) -> None:
    index = "unet/diffusion_pytorch_model.safetensors.index.json"
    shards = [f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    hub.files = [file for file in MODEL_FILES if not file.startswith("unet/diffusion")] + [index, *shards]
    (hub.folder / "unet").mkdir()
    names = {key: Path(shard).name for key, shard in zip("ab", shards, strict=True)}
    (hub.folder / index).write_text(json.dumps({"weight_map": names}))
    find_model("org/sd")
    assert {index, *shards} <= set(hub.asked[-1][3])


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("circles", "circles"),
        ("runs/circles/", "circles"),
        ("/models/v1-5-pruned.safetensors", "v1-5-pruned"),
        ("org/stable-diffusion-2.1@main", "stable-diffusion-2.1"),
        ("org/name/v2-1_768.ckpt", "v2-1_768"),
        ("models/v1:5", "v1-5"),
        ("models/set #2", "set-2"),
        ("models/what?.safetensors", "what"),
        ("models/a%20b", "a-20b"),
    ],
)
def test_a_bundle_is_called_as_its_model_in_letters_that_addresses_can_hold(model: str, name: str) -> None:
    assert model_name(model) == name


def test_two_models_without_such_letters_have_two_bundles() -> None:
    names = [model_name(f"models/{name}") for name in ("猫", "犬", "#")]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"model-[0-9a-f]{8}", name) for name in names)


def test_a_model_named_by_dots_is_called_as_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sketches" / "unet").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sketches" / "unet")
    assert [model_name(model) for model in (".", "./", "..", "../unet/..")] == ["unet", "unet", "sketches", "sketches"]


def test_half_of_a_tiny_autoencoder_brings_the_other(hub: Hub) -> None:
    hub.files = ["taesd_encoder.safetensors", "taesd_decoder.safetensors"]
    assert find_vae("madebyollin/taesd/taesd_decoder.safetensors@v1") == hub.folder / "taesd_decoder.safetensors"
    files = [asked for asked in hub.asked if asked[0] == "file"]
    assert files == [
        ("file", "madebyollin/taesd", f"taesd_{half}.safetensors", "v1") for half in ("decoder", "encoder")
    ]


def test_a_vae_that_is_one_file_brings_nothing_else(hub: Hub) -> None:
    find_vae("stabilityai/sd-vae-ft-mse-original/vae-ft-mse-840000-ema-pruned.ckpt")
    assert [asked[0] for asked in hub.asked] == ["file"]


def test_a_vae_that_is_replaced_is_not_downloaded(hub: Hub) -> None:
    find_model("org/sd", with_vae=False)
    assert [file for file in hub.asked[1][3] if file.startswith("vae/")] == ["vae/config.json"]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["README.md", "image.png", "pytorch_lora_weights.safetensors"], ["pytorch_lora_weights.safetensors"]),
        (["adapter_config.json", "adapter_model.safetensors"], ["adapter_config.json", "adapter_model.safetensors"]),
        (["adapter_model.bin"], ["adapter_model.bin"]),
    ],
)
def test_a_loras_repository_gives_its_file_and_pefts_options(hub: Hub, files: list[str], wanted: list[str]) -> None:
    hub.files = files
    assert find_lora("latent-consistency/lcm-lora-sdv1-5@main") == hub.folder / wanted[-1]
    assert [asked[2:] for asked in hub.asked if asked[0] == "file"] == [(file, "main") for file in wanted]


def test_one_lora_of_a_repository_is_named(hub: Hub) -> None:
    hub.files = ["a/adapter_config.json", "a/adapter_model.safetensors", "b.safetensors"]
    assert find_lora("org/styles/b.safetensors") == hub.folder / "b.safetensors"
    assert [asked[2] for asked in hub.asked if asked[0] == "file"] == ["b.safetensors"]
    find_lora("org/styles/a/adapter_model.safetensors")
    assert [asked[2] for asked in hub.asked if asked[0] == "file"][1:] == [f for f in hub.files if f.startswith("a/")]
    with pytest.raises(UserError, match=r"--lora org/styles: got none of the usual files, wanted one of pytorch_lora"):
        find_lora("org/styles")


def test_the_index_of_shards_that_are_not_asked_for_is_not_downloaded(hub: Hub) -> None:
    """A folder with the index alone looks like one whose shards were lost."""
    hub.files = [*MODEL_FILES, "unet/diffusion_pytorch_model.safetensors.index.json"]
    find_model("org/sd")
    assert not any(".index." in file for file in hub.asked[-1][3])
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in hub.asked[-1][3]


@pytest.mark.parametrize("text", ["org/lora", "org/lora/pytorch_lora_weights.safetensors", "org/lora@v1"])
def test_without_the_hub_a_lora_comes_from_its_cache(cache: Path, text: str) -> None:
    """Its repository has neither model_index.json nor config.json."""
    repository = cache / "models--org--lora"
    (repository / "snapshots" / "3").mkdir(parents=True)
    (repository / "snapshots" / "3" / "pytorch_lora_weights.safetensors").write_bytes(b"")
    (repository / "refs").mkdir()
    for revision in ("main", "v1"):
        (repository / "refs" / revision).write_text("3")
    assert find_lora(text) == repository / "snapshots" / "3" / "pytorch_lora_weights.safetensors"


def test_a_file_of_diffusers_brings_its_configuration(hub: Hub) -> None:
    hub.files = ["config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"]
    name = "diffusion_pytorch_model.fp16.safetensors"
    assert find_weights(f"org/shuffle/{name}@v1", "--controlnet") == hub.folder / name
    assert [asked[2:] for asked in hub.asked if asked[0] == "file"] == [("config.json", "v1"), (name, "v1")]
