import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config_file import documented_options, from_tree, load_config, preset_names


def test_the_four_presets_are_complete_configs() -> None:
    assert preset_names() == ["circles", "fill50k-sd15", "fill50k-sd21", "webdataset-sd15"]
    for name in preset_names():
        assert load_config(name).out == f"runs/{'circles-controlnet' if name == 'circles' else name}"


def test_every_option_says_what_it_means() -> None:
    for name, _, meaning in documented_options():
        assert len(meaning) > 4, name


def test_what_is_saved_reads_back_as_the_same_config(tmp_path) -> None:
    config = load_config("webdataset-sd15")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(str(tmp_path / "config.yaml")) == config


def test_the_command_line_wins_over_the_file() -> None:
    config = load_config("circles", ["trainer.max_steps=7", "optim.learning_rate=1e-5", "model.hint_widths=[4, 8]"])
    assert (config.trainer.max_steps, config.optim.learning_rate, config.model.hint_widths) == (7, 1e-5, (4, 8))


@pytest.mark.parametrize("text", ["{0..9}.tar", "pipe:ssh host: cat {0..9}.tar", "C:\\data", "x: y: z"])
def test_what_is_no_yaml_on_the_command_line_stands_for_itself(text: str) -> None:
    assert load_config("circles", [f"data.path={text}"]).data.path == text


def test_numbers_that_yaml_reads_as_words_are_numbers() -> None:
    assert from_tree({"data": {"path": "d"}, "trainer": {"max_steps": 1, "precision": 32}}).trainer.precision == "32"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"optim": {"learnin_rate": 1}}, "did you mean optim.learning_rate"),
        ({"trainer": {"max_steps": "many"}}, "trainer.max_steps: got 'many', wanted int or null"),
        ({"model": {"sd_locked": 1}}, "wanted bool"),
        ({"trainer": {"precision": "fp8"}}, "wanted one of 32, bf16, fp16"),
        ({"data": {"path": "d"}, "trainer": {"max_steps": 1, "epochs": 1}}, "wanted one of the two"),
        ({"data": {"path": "x.tar", "format": "webdataset"}, "trainer": {"epochs": 2}}, "whose length is known"),
        ({"data": {"path": "d", "height": 100}}, "multiple of 8"),
        ({"trainer": {"max_steps": 1}}, "data.path"),
        ({"model": []}, "a mapping of options"),
    ],
)
def test_a_mistake_is_named(tree: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        from_tree(tree)
    assert message in str(caught.value)


def test_an_unknown_preset_lists_those_that_are() -> None:
    with pytest.raises(UserError, match="webdataset-sd15"):
        load_config("fill50k")


def test_an_override_without_a_value_is_named() -> None:
    with pytest.raises(UserError, match=r"section\.option=value"):
        load_config("circles", ["trainer.max_steps"])


def test_an_override_below_something_that_is_no_section_is_named() -> None:
    with pytest.raises(UserError, match="max_steps to be a section"):
        load_config("circles", ["trainer.max_steps.now=1"])


def test_a_section_with_nothing_in_it_can_be_filled(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text("data: {path: d}\nmodel:\ntrainer: {max_steps: 1}\n")
    assert load_config(str(tmp_path / "run.yaml"), ["model.hint_channels=1"]).model.hint_channels == 1
