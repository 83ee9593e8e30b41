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


TYPED = ["/tmp/set #2", "010", "2023-11-05", "no", "1e5", "~", "null", "'quoted'", "[a, b]", "{a: b}", " a ", ""]


@pytest.mark.parametrize("text", TYPED)
def test_an_option_that_is_a_text_takes_what_was_typed(text: str) -> None:
    """In YAML's own types these are a text that is cut off, 8, a date, False, a number, ..."""
    assert load_config("circles", [f"model.base={text}"]).model.base == text


@pytest.mark.parametrize("text", ["010", "2023-11-05", "no", "1e5", "12:30:00", "0x1F", "1_000", "on", ".inf"])
def test_a_file_that_names_a_text_plainly_keeps_it(tmp_path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(f"data: {{path: d}}\nmodel:\n  base: {text}\ntrainer: {{max_steps: 1}}\n")
    assert load_config(str(tmp_path / "run.yaml")).model.base == text


def test_null_is_no_text_where_an_option_may_be_without_one(tmp_path) -> None:
    assert load_config("circles", ["model.controlnet=null"]).model.controlnet is None
    (tmp_path / "run.yaml").write_text("data: {path: d, cache: null, annotator: }\ntrainer: {max_steps: 1}\n")
    data = load_config(str(tmp_path / "run.yaml")).data
    assert (data.cache, data.annotator) == (None, None)


def test_the_option_decides_what_a_number_is(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text(
        "data: {path: d, proportion_empty_prompts: 1}\n"
        "optim: {learning_rate: 1e-5, max_grad_norm: 0}\n"
        "trainer: {max_steps: 7, precision: 32, allow_tf32: True}\n"
    )
    config = load_config(str(tmp_path / "run.yaml"))
    assert (config.trainer.precision, config.trainer.max_steps, config.trainer.allow_tf32) == ("32", 7, True)
    assert (config.data.proportion_empty_prompts, config.optim.learning_rate) == (1.0, 1e-5)


@pytest.mark.parametrize("text", ["d #2", "010", "no", "2023-11-05", "C:\\data", "null", "~", "x: y"])
def test_a_text_survives_being_saved_with_the_run(tmp_path, text: str) -> None:
    config = load_config("circles", [f"data.path={text}"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(str(tmp_path / "config.yaml")).data.path == text


def test_a_path_is_never_taken_for_a_preset(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"'\./circles', which does not exist"):
        load_config("./circles")
    (tmp_path / "circles").write_text("data: {path: mine}\ntrainer: {max_steps: 1}\n")
    assert load_config("./circles").data.path == "mine"


def test_a_preset_says_that_a_file_has_its_name_too(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circles").write_text("data: {path: mine}\ntrainer: {max_steps: 1}\n")
    assert load_config("circles").data.path == "runs/circles/data"
    assert "./circles" in capsys.readouterr().err


def test_a_file_in_another_encoding_is_named(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text("data: {path: d}\ntrainer: {max_steps: 1}\n", encoding="utf-16")
    with pytest.raises(UserError, match="UTF-16"):
        load_config(str(tmp_path / "run.yaml"))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"optim": {"learnin_rate": 1}}, "did you mean optim.learning_rate"),
        ({"trainer": {"max_steps": "many"}}, "trainer.max_steps: got 'many', wanted a whole number or null"),
        ({"model": {"sd_locked": "no"}}, "model.sd_locked: got 'no', wanted true or false"),
        ({"model": {"hint_widths": "4, 8"}}, "wanted a list of whole numbers"),
        ({"trainer": {"max_steps": "010"}}, "got '010', wanted a whole number or null"),
        ({"optim": {"learning_rate": "nan"}}, "a finite number"),
        ({"optim": {"learning_rate": -1}}, "optim.learning_rate: got -1.0, wanted 0 or more"),
        ({"optim": {"beta2": 1}}, "optim.beta2: got 1.0, wanted 0 or more, and less than 1"),
        ({"optim": {"lr_num_cycles": 0}}, "optim.lr_num_cycles: got 0, wanted 1 or more"),
        ({"optim": {"min_snr_gamma": 0}}, "optim.min_snr_gamma: got 0.0, wanted more than 0, or null"),
        ({"trainer": {"max_steps": 0}}, "trainer.max_steps: got 0, wanted 1 or more"),
        ({"trainer": {"seed": 2**64}}, "trainer.seed: got 18446744073709551616, wanted at most"),
        ({"model": {"hint_widths": []}}, "model.hint_widths: got [], wanted 1 or more for each layer"),
        ({"model": {"hint_widths": [16, 0]}}, "model.hint_widths: got [16, 0]"),
        ({"data": {"path": ["a"]}}, "wanted a text"),
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
