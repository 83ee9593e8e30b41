"""Sets that a run cannot learn from are refused before it begins."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import TrainConfig
from mlc_controlnet.train.data.fill50k_to_shards import fill50k_to_shards
from mlc_controlnet.train.data.loader import open_data
from tests.train.conftest import write_set

MakeConfig = Callable[..., TrainConfig]


def quiet(line: str) -> None:
    pass


def shards(make_config: MakeConfig, path: str, **options) -> TrainConfig:
    return make_config(data__format="webdataset", data__path=path, **options)


def test_shards_that_are_not_there_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    """Fewer than data.max_bad_samples, so nothing else would stop a run without a single picture."""
    with pytest.raises(UserError, match=r"no sample that can be read; .* is .*00[0-3]\.tar: a shard that cannot"):
        open_data(shards(make_config, f"{tmp_path}/{{000..003}}.tar"))


def test_a_key_that_no_sample_has_is_refused(make_config: MakeConfig, tmp_path: Path, tiny_set: Path) -> None:
    fill50k_to_shards(tiny_set, tmp_path, log=quiet)
    with pytest.raises(UserError, match=r"no \.seg\.png; wanted|no \.seg\.png.*data\.control_key"):
        open_data(shards(make_config, f"{tmp_path}/00000.tar", data__control_key="seg.png"))


def test_a_set_without_its_pictures_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 4)
    for picture in (folder / "target").iterdir():
        picture.unlink()
    with pytest.raises(UserError, match=r"no sample that can be read; the first is target/0\.png: No such file"):
        open_data(make_config(data__path=str(folder)))


def test_what_is_shown_are_the_first_that_can_be_read(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 5)
    (folder / "target" / "0.png").unlink()
    data = open_data(make_config(data__path=str(folder), log__images=2))
    assert [sample.key for sample in data.shown] == ["target/1.png", "target/2.png"]


def test_a_missing_shard_among_others_does_not_stop_the_pictures(
    make_config: MakeConfig, tmp_path: Path, tiny_set: Path
) -> None:
    fill50k_to_shards(tiny_set, tmp_path, log=quiet)
    data = open_data(shards(make_config, f"{tmp_path}/{{00000..00001}}.tar", log__images=3))
    assert len(data.shown) == 3
