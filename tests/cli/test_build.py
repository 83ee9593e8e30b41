"""build.py's command line: what it makes of its options."""

import argparse
from pathlib import Path

import pytest

from mlc_controlnet.cli.build import add_arguments, listing_of, resolve, run, site_folder
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import BuildConfig, ControlNetOption, EmbeddingOption, LoraOption
from mlc_controlnet.errors import UserError


def parse_options(arguments: list[str]) -> BuildConfig:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return resolve(parser.parse_args(arguments))


def test_the_bundled_model_is_built_whole() -> None:
    config = parse_options(["--target", "webgpu"])
    assert (config.model, config.controlnets, config.loras) == ("circles", (), ())
    assert config.components == COMPONENTS
    assert config.out == Path("dist/circles-webgpu")


def test_a_checkpoint_of_ones_own_is_put_together_from_options() -> None:
    config = parse_options(
        [
            "--target",
            "llvm",
            "--model",
            "org/sd@main",
            "--controlnet",
            "canny.pth",
            "--controlnet",
            "edges=org/depth",
            "--vae",
            "vae-ft-mse.ckpt",
            "--preview-vae",
            "taesd_decoder.pth",
            "--lora",
            "a.safetensors:0.5",
            "--lora",
            "b.safetensors",
            "--embedding",
            "easynegative.safetensors",
            "--embedding",
            "learned_embeds.bin=<cat-toy>",
            "--tokenizer",
            "clip",
            "--prediction-type",
            "v_prediction",
        ]
    )
    assert config.model == "org/sd@main"
    assert config.out.name == "sd-llvm"
    assert config.controlnets == (ControlNetOption("canny.pth"), ControlNetOption("org/depth", "edges"))
    assert (config.vae, config.preview_vae) == ("vae-ft-mse.ckpt", "taesd_decoder.pth")
    assert config.loras == (LoraOption("a.safetensors", 0.5), LoraOption("b.safetensors", 1.0))
    inversions = (EmbeddingOption("easynegative.safetensors"), EmbeddingOption("learned_embeds.bin", "<cat-toy>"))
    assert config.embeddings == inversions
    assert (config.tokenizer, config.prediction_type) == (Path("clip"), "v_prediction")


def test_a_single_file_gives_the_bundle_its_name_without_the_suffix() -> None:
    config = parse_options(["--target", "llvm", "--model", "/models/v1-5-pruned-emaonly.safetensors"])
    assert config.out.name == "v1-5-pruned-emaonly-llvm"


def test_components_are_repeated() -> None:
    config = parse_options(["--target", "llvm", "--component", "text_encoder", "--component", "unet"])
    assert config.components == ("text_encoder", "unet")


def test_sizes_are_width_by_height_and_the_first_is_the_default() -> None:
    config = parse_options(["--target", "llvm", "--size", "512x768", "--size", "768x512", "--prompt-chunks", "3"])
    assert (config.height, config.width) == (768, 512)
    assert config.other_sizes == ((512, 768),)
    assert config.prompt_chunks == 3


def test_one_size_can_be_height_and_width() -> None:
    config = parse_options(["--target", "llvm", "--height", "768", "--width", "512"])
    assert (config.height, config.width, config.other_sizes, config.prompt_chunks) == (768, 512, (), 2)


def test_a_target_is_needed_unless_a_controlnet_is_added() -> None:
    with pytest.raises(UserError, match=r"--target: got none, wanted one of webgpu, llvm, .*; pass --target webgpu or"):
        parse_options(["--model", "circles"])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("", r"--add-controlnet: got no --out, wanted the folder of a bundle or of a site; pass --out FOLDER"),
        (
            "--out x --model y --size 64x64 --deepcache",
            r"got --size, --deepcache beside it, wanted only --out, and --model for a Control-LoRA: the rest is",
        ),
        ("--out nowhere", r"nowhere: got no such folder, wanted a bundle"),
    ],
)
def test_adding_a_controlnet_needs_a_bundle_and_nothing_else(options: str, complaint: str) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(UserError, match=complaint):
        run(parser.parse_args(["--add-controlnet", "canny.pth", *options.split()]))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--size 512", r"--size: got '512', wanted WIDTHxHEIGHT in pixels"),
        ("--size 512x768 --height 512", r"--size: got --height or --width beside it"),
        ("--prompt-chunks 0", r"--prompt-chunks: got 0, wanted 1 or more"),
        ("--component decoder", r"--component: got 'decoder', wanted one of text_encoder, "),
        ("--calibrate circle", r"--calibrate: got no --weights, wanted weights of few bits; add for example --weights"),
        ("--calibrate circle --weights float16", r"--calibrate: got float16, wanted weights of few bits"),
        ("--calibrate none.txt --weights int8", r"--calibrate none.txt: got no such file"),
        (
            "--calibrate circle --weights int8 --calibrate-image none.png",
            r"--calibrate-image none.png: got no such file, wanted an image file",
        ),
        ("--vae-tiling large", r"--vae-tiling: got 'large', wanted WIDTHxHEIGHT in pixels; .* --vae-tiling 512x768"),
        ("--calibrate-image a.png --weights int8", r"--calibrate-image: got no --calibrate, wanted prompts beside it"),
        (
            "--calibrate circle --weights int8 --component unet",
            r"--calibrate: got a build without text_encoder, control_embedding, controlnet, vae_decoder, wanted all",
        ),
        ("--tuning-db nowhere", r"--tuning-db: got nowhere, which is no folder, wanted a folder of tuning records"),
        ("--prediction-type x0", r"--prediction-type: got 'x0', wanted one of epsilon, v_prediction"),
    ],
)
def test_what_cannot_be_built_is_refused_by_its_option(options: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        parse_options(["--target", "llvm", *options.split()])


def test_a_bundle_elsewhere_has_its_site_next_to_it(tmp_path: Path) -> None:
    assert site_folder(None) == Path("dist/site")
    assert site_folder(tmp_path / "mine") == tmp_path / "mine-site"
    assert site_folder(Path("/")) == Path("/-site")  # no name to change; the build refuses it


def test_a_folder_that_is_not_a_site_is_refused_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "mine-site").mkdir()
    (tmp_path / "mine-site" / "thesis.txt").touch()
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(UserError, match="mine-site: got something that is not a site"):
        run(parser.parse_args(["--target", "webgpu", "--out", str(tmp_path / "mine")]))
    assert not (tmp_path / "mine").exists()


def test_a_file_in_the_place_of_dumps_is_told_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlc_controlnet.build.load_model", lambda _: pytest.fail("the model was loaded"))
    (tmp_path / "notes").touch()
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = ["--target", "llvm", "--out", str(tmp_path / "mine"), "--dump-ir", str(tmp_path / "notes" / "ir")]
    with pytest.raises(UserError, match=r"--dump-ir: got .*notes/ir, where .*notes is a file, wanted a folder"):
        run(parser.parse_args(options))
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_models_folder_speaks_for_it_unless_an_option_does(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "picture.png").touch()
    (tmp_path / "model_index.json").touch()
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    told = listing_of(parser.parse_args(["--model", str(tmp_path)]))
    assert (told.licence, told.picture) == ("mit", tmp_path / "picture.png")
    assert listing_of(parser.parse_args(["--model", str(tmp_path), "--licence", "mine"])).licence == "mine"
    assert listing_of(parser.parse_args([])).licence == "apache-2.0"
    assert listing_of(parser.parse_args(["--model", "org/model"])).picture is None


def test_a_folder_that_only_has_a_bundled_models_name_does_not_speak_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "circles").mkdir()
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert listing_of(parser.parse_args([])).licence == "apache-2.0"
