"""The command line, as a user meets it."""

import argparse
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.bundle.reader import read_bundle
from mlc_controlnet.cli.interrupt import INTERRUPTED
from mlc_controlnet.cli.main import _parser, main
from mlc_controlnet.runtime.metadata import read_settings
from mlc_controlnet.runtime.option_text import FORMS
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.runtime.request import OPTIONS
from tests.fixtures.linear_bundle import HEIGHT, TOKENS, WIDTH, linear_model, write_linear_bundle


@pytest.fixture
def ring(tmp_path):
    """A control image of the linear bundle's size."""
    path = tmp_path / "ring.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def generate(tmp_path, linear_bundle, ring):
    """Run `generate` with options that work, and those that a test puts in their place."""

    def run(*flags, **options):
        given = {"bundle": linear_bundle.path, "prompt": "gold", "control_image": ring, "output": tmp_path / "out.png"}
        arguments = [
            f"--{name.replace('_', '-')}={value}" for name, value in {**given, **options}.items() if value is not None
        ]
        return main(["generate", *arguments, *flags])

    return run


def test_generate_draws_what_the_pipeline_draws_and_says_how(generate, tmp_path, linear_bundle, ring, capsys):
    assert generate(seed=0, num_inference_steps=20, guidance_scale=3.5, negative_prompt="navy") == 0
    with Image.open(tmp_path / "out.png") as image:
        drawn, said = np.asarray(image), image.text
    pipeline = ControlNetPipeline.from_bundle(linear_bundle)
    options = {"num_inference_steps": 20, "guidance_scale": 3.5, "negative_prompt": "navy"}
    expected = pipeline("gold", Image.open(ring), seed=0, **options)
    assert np.array_equal(drawn, expected.images[0])
    assert said == expected.metadata
    restored = read_settings((tmp_path / "out.png").read_bytes())
    assert restored.options["seed"] == 0
    assert restored.bundle_sha256 == linear_bundle.sha256
    captured = capsys.readouterr()
    assert "20/20" in captured.err  # the progress bar
    assert captured.out == f"{tmp_path / 'out.png'}: seed 0\n"


def test_several_pictures_are_written_one_by_one(generate, tmp_path, capsys):
    assert generate(seed=3, num_images_per_prompt=2) == 0
    assert capsys.readouterr().out == "".join(f"{tmp_path}/out-{i}.png: seed {2 + i}\n" for i in (1, 2))
    pictures = [(tmp_path / f"out-{i}.png").read_bytes() for i in (1, 2)]
    assert pictures[0] != pictures[1]
    assert not (tmp_path / "out.png").exists()


def test_a_name_that_is_not_utf8_is_drawn_and_told(generate, tmp_path, capsys):
    """As files from an older Windows have it, which unpack with bytes of Latin-1."""
    name = os.fsdecode(b"caf\xe9.png")
    assert generate(seed=3, output=tmp_path / name) == 0
    assert capsys.readouterr().out.endswith("caf\\udce9.png: seed 3\n")
    assert (tmp_path / name).is_file()


def test_the_share_of_the_steps_that_is_steered_reaches_the_pipeline(generate, tmp_path):
    assert generate(control_guidance_start=0.25, control_guidance_end=0.75) == 0
    said = read_settings((tmp_path / "out.png").read_bytes()).options
    assert (said["control_guidance_start"], said["control_guidance_end"]) == (0.25, 0.75)


def test_a_drawn_seed_is_told_and_repeats_the_picture(generate, tmp_path, capsys):
    assert generate() == 0
    seed = int(capsys.readouterr().out.split()[-1])
    first = (tmp_path / "out.png").read_bytes()
    assert generate(seed=seed) == 0
    assert (tmp_path / "out.png").read_bytes() == first


def test_the_settings_of_a_picture_draw_it_again(generate, tmp_path, capsys):
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    assert generate(seed=3, num_inference_steps=5, negative_prompt="navy", output=first) == 0
    assert generate(settings_from=first, output=again, prompt=None) == 0
    assert again.read_bytes() == first.read_bytes()
    assert generate(settings_from=first, output=again, seed=4) == 0
    restored = read_settings(again.read_bytes()).options
    assert (restored["seed"], restored["num_inference_steps"], restored["prompt"]) == (4, 5, "gold")
    assert again.read_bytes() != first.read_bytes()
    capsys.readouterr()
    assert generate(settings_from=tmp_path / "ring.png", prompt=None) == 2
    assert "got a PNG file without settings, wanted a picture that this program" in capsys.readouterr().err
    assert generate(settings_from=tmp_path / "none.png") == 2
    assert "none.png: got no such file, wanted a PNG file" in capsys.readouterr().err
    assert generate(prompt=None) == 2
    assert "--prompt: got none, wanted text that describes the picture" in capsys.readouterr().err


def test_reduced_memory_draws_the_same_picture(generate, tmp_path):
    assert generate(seed=3) == 0
    first = (tmp_path / "out.png").read_bytes()
    (tmp_path / "out.png").unlink()
    assert generate("--reduced-memory", seed=3) == 0
    assert (tmp_path / "out.png").read_bytes() == first


BAD_OPTIONS = [
    (
        {"num_inference_steps": 0},
        r"num inference steps: got 0, wanted 1 to 1000 for the sampler ddim; choose another number",
    ),
    ({"num_inference_steps": 1001}, r"num inference steps: got 1001, wanted 1 to 1000 for the sampler"),
    ({"seed": -1}, r"seed: got -1, wanted an integer from 0 to 9007199254740991; choose"),
    ({"seed": 2**53}, r"seed: got 9007199254740992, wanted"),
    ({"sampler": "plms"}, r"sampler: got 'plms', wanted one of ddim, dpmpp_2m, euler, euler_a, tcd; choose"),
    ({"guidance_scale": "nan"}, r"guidance scale: got nan, wanted a finite number; choose"),
    (
        {"controlnet_conditioning_scale": "inf"},
        r"controlnet conditioning scale: got inf, wanted a finite number; choose",
    ),
    (
        {"device": "cuda"},
        r"got llvm only, wanted one for cuda; build one with python -m mlc_controlnet build --target cuda",
    ),
    (
        {"bundle": "nowhere"},
        r"nowhere: got no such folder, wanted a bundle; build one with python -m mlc_controlnet build",
    ),
    ({"control_image": "nowhere.png"}, r"control image nowhere.png: got no such file, wanted an image file; check"),
    (
        {"output": "nowhere/out.png"},
        r"output nowhere/out.png: got no folder nowhere, wanted an existing folder; create",
    ),
    ({"output": "out.jpg"}, r"output out.jpg: got the suffix '.jpg', wanted .png; name a PNG file"),
]


def assert_refused(code, tmp_path, capsys, message, has_begun=False):
    """Exit code 2, one line that says what to do, and no picture or part of one.

    Nothing else is written, unless the drawing `has_begun`: then there is its progress.
    """
    *others, line = capsys.readouterr().err.splitlines()
    assert code == 2
    assert not others or has_begun
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_a_bad_option_is_refused(generate, tmp_path, capsys, options, message):
    assert_refused(generate(**options), tmp_path, capsys, message)


@pytest.mark.parametrize("options", [{"sampler": "plms"}, {"num_inference_steps": 0}, {"clip_skip": 99}])
def test_an_option_is_refused_before_the_weights_are_loaded(generate, tmp_path, monkeypatch, capsys, options):
    monkeypatch.setattr("mlc_controlnet.runtime.engine.Engine.load", lambda *_: pytest.fail("weights were loaded"))
    assert_refused(generate(**options), tmp_path, capsys, next(iter(options)).replace("_", " "))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an image", "a file that is not an image, wanted a PNG, JPEG, .*; save it again as PNG"),
        (b"\x89PNG\r\n\x1a\n", "a damaged image|a file that is not an image"),
        (Image.new("RGB", (1, 1)), "got 1x1 pixels, wanted 8x8 at least; draw one of 24x16"),
    ],
)
def test_a_bad_control_image_is_refused(generate, tmp_path, capsys, content, message):
    path = tmp_path / "bad.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path)
    assert_refused(generate(control_image=path), tmp_path, capsys, message)


@pytest.mark.parametrize(
    ("image", "notice"),
    [
        (Image.new("RGBA", (WIDTH, HEIGHT)), "its transparency was composited on black"),
        (Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)), "16-bit grey was scaled to 8 bits"),
        (Image.new("RGB", (100, 50)), "100x50 was scaled to cover 24x16 and cropped around its centre"),
    ],
)
def test_a_control_image_that_had_to_be_changed_is_told(generate, tmp_path, capsys, image, notice):
    image.save(tmp_path / "other.png")
    assert generate(control_image=tmp_path / "other.png") == 0
    assert f"notice: control image: {notice}\n" in capsys.readouterr().err


def test_dark_lines_on_white_are_noticed_and_inverted_on_demand(generate, tmp_path, capsys):
    lines = np.full((HEIGHT, WIDTH), 255, np.uint8)
    lines[6:8, 4:20] = 0
    drawn = {}
    for name, pixels in (("white", lines), ("black", 255 - lines)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        for flags in ((), ("--invert",)):
            assert generate(*flags, control_image=tmp_path / f"{name}.png", seed=0) == 0
            drawn[name, flags] = (tmp_path / "out.png").read_bytes()
            noticed = "it looks like dark lines on white" in capsys.readouterr().err
            assert noticed == ((name, flags) in [("white", ()), ("black", ("--invert",))])
    assert drawn["white", ("--invert",)] == drawn["black", ()] != drawn["white", ()]


def test_a_prompt_that_is_cut_is_told(generate, capsys):
    assert generate(prompt="x" * (TOKENS - 2) + " the rest") == 0
    assert "notice: prompt: longer than 77 tokens, this end was cut: 'the rest'\n" in capsys.readouterr().err


@pytest.fixture
def inpainting_files(tmp_path):
    """A picture and a mask of the linear bundle's size."""
    rng = np.random.default_rng(3)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "photo.png")
    Image.fromarray(255 * rng.integers(0, 2, (HEIGHT, WIDTH), np.uint8)).save(tmp_path / "mask.png")
    return {"image": tmp_path / "photo.png", "mask_image": tmp_path / "mask.png"}


def test_generate_repaints_a_picture(generate, tmp_path, linear_inpainting_bundle, inpainting_files, ring):
    assert generate(bundle=linear_inpainting_bundle.path, seed=0, **inpainting_files) == 0
    pictures = {name: Image.open(path) for name, path in inpainting_files.items()}
    pipeline = ControlNetPipeline.from_bundle(linear_inpainting_bundle)
    expected = pipeline("gold", **pictures, control_image=Image.open(ring), seed=0)
    with Image.open(tmp_path / "out.png") as drawn:
        assert np.array_equal(np.asarray(drawn), expected.images[0])


@pytest.mark.parametrize(
    ("inpaints", "given", "message"),
    [
        (
            True,
            (),
            "error: image: got none, wanted a picture and a mask that is white where the model repaints; pass both",
        ),
        (True, ("image",), "error: mask image: got none, wanted a picture and a mask"),
        (True, ("mask_image",), "error: image: got none, wanted a picture and a mask"),
        (False, ("mask_image",), "error: image: got none, wanted a picture and a mask"),
    ],
)
def test_a_mask_needs_its_picture_and_an_inpainting_model_both(
    generate,
    tmp_path,
    capsys,
    monkeypatch,
    linear_bundle,
    linear_inpainting_bundle,
    inpainting_files,
    inpaints,
    given,
    message,
):
    monkeypatch.setattr(ControlNetPipeline, "from_bundle", lambda *_: pytest.fail("the weights were loaded"))
    bundle = linear_inpainting_bundle if inpaints else linear_bundle
    code = generate(bundle=bundle.path, **{name: inpainting_files[name] for name in given})
    assert_refused(code, tmp_path, capsys, message)


@pytest.mark.parametrize("name", ["image", "mask_image"])
def test_a_picture_that_is_not_there_is_named_for_what_it_is(generate, tmp_path, capsys, inpainting_files, name):
    code = generate(**{**inpainting_files, name: tmp_path / "none.png"})
    assert_refused(code, tmp_path, capsys, rf"error: {name.replace('_', ' ')} .*none.png: got no such file")


DAMAGES = {
    "no such file": lambda path: path.unlink(),
    "short": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "altered": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x55"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["params/00.bin", "linear-float32.so", "tokenizer/tokenizer.json", "samplers.json"])
def test_a_damaged_bundle_is_named_by_generate_and_verify(generate, tmp_path, linear_bundle_copy, capsys, name, damage):
    wanted = next(entry for entry in read_bundle(linear_bundle_copy).manifest.files if entry.path == name)
    DAMAGES[damage](linear_bundle_copy / name)
    message = rf"{name}: got .*{damage}.*, wanted {wanted.bytes} bytes, sha256 {wanted.sha256}; build the bundle again"
    assert_refused(generate(bundle=linear_bundle_copy), tmp_path, capsys, message)
    message = rf"{name}: .*{damage}.* wanted {name}: {wanted.bytes} bytes, sha256 {wanted.sha256}"
    assert_refused(main(["verify", str(linear_bundle_copy)]), tmp_path, capsys, message)


@pytest.mark.parametrize(
    ("weights", "where"),
    [
        ("embedding", "text_encoder, step 1 of 4"),
        ("mixing", "unet, step 1 of 4"),
        ("colors", "vae_decoder, after 4 steps"),
    ],
)
def test_a_nan_in_the_weights_names_the_component_and_the_step(
    generate, tmp_path, linear_bundle, capsys, weights, where
):
    model = linear_model()
    broken = dataclasses.replace(model, **{weights: np.full_like(getattr(model, weights), np.nan)})
    library = linear_bundle.path / "linear-float32.so"
    bundle = write_linear_bundle(tmp_path / "broken", broken, library)
    message = rf"{where}: got NaN or infinity in \d+ of \d+ numbers, wanted finite numbers; try another seed"
    assert_refused(generate(bundle=bundle.path), tmp_path, capsys, message, has_begun=True)


def test_a_failure_of_ours_keeps_its_traceback(generate, monkeypatch):
    monkeypatch.setattr(ControlNetPipeline, "start", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate()


def test_an_interrupted_picture_leaves_nothing(generate, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ControlNetPipeline, "decode", interrupt)
    assert generate() == INTERRUPTED
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["ring.png"]


def test_ctrl_c_is_no_failure_where_tvm_makes_another_error_of_it(monkeypatch, capsys):
    """It does so in a pass that it called, which is most of a build."""
    import tvm

    @tvm.transform.module_pass(opt_level=0)
    def interrupted(module, context):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
        return module

    monkeypatch.setattr("mlc_controlnet.cli.verify.run", lambda options: interrupted(tvm.IRModule()))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores the signal
    try:
        assert main(["verify"]) == INTERRUPTED
        assert capsys.readouterr().err == "interrupted\n"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_verify_says_what_it_checked(linear_bundle, capsys):
    assert main(["verify", str(linear_bundle.path)]) == 0
    assert re.search(
        rf"5 files, 0\.\d MB, all as the manifest says; sha256 {linear_bundle.sha256}\n", capsys.readouterr().out
    )


def test_train_can_write_its_data_set_only(tmp_path, monkeypatch, capsys):
    from mlc_controlnet.train.circles.recipe import Recipe

    monkeypatch.setattr("mlc_controlnet.train.circles.recipe.Recipe", lambda: Recipe(examples=3))
    assert main(["train", "circles", "--out", str(tmp_path), "--data-only"]) == 0
    examples = [json.loads(line) for line in (tmp_path / "data" / "prompt.json").read_text().splitlines()]
    assert len(examples) == 3
    for example in examples:
        assert re.fullmatch(r"\w+ circle with \w+ background", example["prompt"])
        assert (tmp_path / "data" / example["source"]).is_file()
        assert (tmp_path / "data" / example["target"]).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert "3 circles" in capsys.readouterr().out


def test_an_unknown_command_exits_with_two(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["draw"])
    assert caught.value.code == 2
    assert "error: argument command: invalid choice: 'draw'" in capsys.readouterr().err


def test_generate_imports_no_torch_where_it_is_installed(tmp_path, linear_bundle, ring):
    """TVM's ffi would import it. Python reports imports on stderr, failed ones too: torch is there if torch._C is."""
    arguments = ["--bundle", linear_bundle.path, "--prompt", "gold", "--control-image", ring, "--output", "out.png"]
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mlc_controlnet", "generate", *map(str, arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "tvm" in imported
    assert not {"torch._C", "diffusers", "transformers"} & imported
    assert (tmp_path / "out.png").is_file()


def test_the_whole_process_ends_with_two_and_one_line(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "mlc_controlnet", "verify", "nowhere"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(r"error: nowhere: got no such folder, wanted a bundle; .*\n", run.stderr)


def test_bench_prints_seconds_milliseconds_and_the_device(linear_bundle, tmp_path, capsys):
    other = shutil.copytree(linear_bundle.path, tmp_path / "other")
    arguments = ["bench", "--bundle", str(linear_bundle.path), "--bundle", str(other), "--rounds", "2", "--steps", "4"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for path in (linear_bundle.path, other):
        assert f"{path}, llvm float32 on " in out
    assert len(re.findall(r"picture, 4 steps, guidance 2 +\d+\.\d\d s", out)) == 2
    for component in ("text_encoder", "controlnet", "unet", "vae_decoder", "vae_encoder"):
        assert len(re.findall(rf"{component} +\d+\.\d\d ms", out)) == 2


def test_bench_times_diffusers_in_turn_with_a_bundle(linear_bundle, random_model, capsys):
    arguments = ["--bundle", str(linear_bundle.path), "--diffusers", str(random_model), "--rounds", "1", "--steps", "1"]
    assert main(["bench", *arguments]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"{random_model}, diffusers [\d.]+ in torch \S+ eager, float32, \d+ threads on ", out)
    assert len(re.findall(r"picture, 1 steps, guidance 2 +\d+\.\d\d s", out)) == 2


def test_bench_refuses_a_folder_that_is_no_model(linear_bundle, tmp_path, capsys):
    assert main(["bench", "--bundle", str(linear_bundle.path), "--diffusers", str(tmp_path)]) == 2
    assert "got no model_index.json, wanted a model in diffusers' layout" in capsys.readouterr().err


def test_bench_refuses_no_rounds(linear_bundle, capsys):
    assert main(["bench", "--bundle", str(linear_bundle.path), "--rounds", "0"]) == 2
    assert capsys.readouterr().err == "error: rounds: got 0, wanted 1 or more; choose another number\n"


@pytest.mark.parametrize("option", ["rounds", "clients", "pictures"])
def test_bench_serve_refuses_a_count_of_none_before_it_measures(linear_bundle, capsys, option):
    assert main(["bench", "serve", "--bundle", str(linear_bundle.path), f"--{option}", "0"]) == 2
    assert capsys.readouterr().err == f"error: --{option}: got 0, wanted 1 or more; choose another number\n"


def test_every_command_and_subcommand_has_something_to_run():
    def leaves(parser):
        groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for group in groups:
            for command in group.choices.values():
                yield from leaves(command)
        if not groups or not groups[0].required:
            yield parser

    without = [parser.prog for parser in leaves(_parser()) if parser.get_default("run") is None]
    assert without == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--seed", "1e9"], "--seed: got '1e9', wanted an integer; see "),
        (["generate", "--sigmas", "1;2"], "--sigmas: got '1;2', wanted numbers with commas between them; see "),
        (
            ["generate", "--controlnet-conditioning-scale", "a"],
            "--controlnet-conditioning-scale: got 'a', wanted a number;",
        ),
        (["generate", "--apply-overlay", "no"], "--apply-overlay: got 'no', wanted true or false; see "),
        (["generate", "--colour", "red"], "unrecognized arguments: --colour red; see "),
        (["train", "circles"], "the following arguments are required: --out; see "),
    ],
)
def test_a_mistake_in_an_option_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = capsys.readouterr().err
    assert (ended.value.code, told.count("\n")) == (2, 1)
    assert told.startswith(f"error: {message}")
    assert told.endswith(" --help\n")


def test_every_parser_of_an_options_text_is_told_in_words():
    for option in OPTIONS.values():
        if option.metavar:
            assert option.parse.__name__ in {*FORMS, "str", "names"}, "any text is one of the last two"
