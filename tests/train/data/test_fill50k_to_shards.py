import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import TrainConfig
from mlc_controlnet.train.data import fill50k
from mlc_controlnet.train.data.fill50k_to_shards import fill50k_to_shards
from mlc_controlnet.train.data.samples import ReadOptions
from mlc_controlnet.train.data.shards import ShardSource, expand, read_epoch
from mlc_controlnet.train.trainer import train
from tests.train.conftest import HEIGHT, WIDTH, write_set


def quiet(line: str) -> None:
    pass


def test_png_shards_hold_the_set_exactly(tmp_path: Path, tiny_set: Path) -> None:
    assert fill50k_to_shards(tiny_set, tmp_path / "shards", 4, "image.png", quiet) == (10, 3, 0)
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["00000.tar", "00001.tar", "00002.tar"]
    source = ShardSource(
        urls=expand(f"{tmp_path}/shards/{{00000..00002}}.tar"),
        keys=("png", "image.png", "txt"),
        seed=0,
        buffer=1,
        options=ReadOptions(HEIGHT, WIDTH, 3, None),
    )
    samples = sorted(read_epoch(source, 0, 0, 1), key=lambda s: s.key)
    for sample, example in zip(samples, fill50k.read(tiny_set), strict=True):
        assert sample.prompt == example.prompt
        pixels = np.rint((sample.pixels.permute(1, 2, 0).numpy() + 1) * 127.5)
        np.testing.assert_array_equal(pixels, example.target)
        np.testing.assert_array_equal(np.rint(sample.control.permute(1, 2, 0).numpy() * 255), example.source)


def test_the_default_is_nemos_layout_and_a_jpeg_is_copied_byte_for_byte(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 2)
    Image.open(folder / "target" / "0.png").save(tmp_path / "picture.jpg", quality=60)
    (tmp_path / "picture.jpg").rename(folder / "target" / "0.png")  # what counts is the file, not its name
    fill50k_to_shards(folder, tmp_path / "shards", log=quiet)
    with tarfile.open(tmp_path / "shards" / "00000.tar") as tar:
        assert tar.getnames() == [f"{n:06d}.{kind}" for n in range(2) for kind in ("jpg", "png", "txt")]
        assert tar.extractfile("000000.jpg").read() == (folder / "target" / "0.png").read_bytes()
        assert tar.extractfile("000001.png").read() == (folder / "source" / "1.png").read_bytes()
        assert tar.extractfile("000001.jpg").read().startswith(b"\xff\xd8")


def test_what_cannot_be_read_is_skipped_and_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 4)
    (folder / "source" / "1.png").unlink()
    (folder / "target" / "2.png").write_bytes(b"no picture")
    lines: list[str] = []
    index = (folder / "prompt.json").read_text()
    (folder / "prompt.json").write_text(f'{{"source": "source/0.png"}}\n{index}')
    assert fill50k_to_shards(folder, tmp_path / "shards", log=lines.append) == (2, 1, 3)
    assert [line.split(": ")[1] for line in lines] == ["prompt.json line 1", "target/1.png", "target/2.png"]
    assert lines[0].endswith(": no target and no prompt (its fields are source)")


@pytest.mark.parametrize("extension", ["png", ".png", "webp"])
def test_an_extension_that_would_lose_something_is_refused(tmp_path: Path, tiny_set: Path, extension: str) -> None:
    with pytest.raises(UserError, match=r"image\.png"):
        fill50k_to_shards(tiny_set, tmp_path, 4, extension, quiet)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_shards_in_two_halves_equals_a_run_in_one(
    make_config: Callable[..., TrainConfig], tmp_path: Path, tiny_set: Path, workers: int
) -> None:
    from tests.train.conftest import same_weights

    fill50k_to_shards(tiny_set, tmp_path / "shards", 4, "image.png", quiet)
    options = {
        "data__format": "webdataset",
        "data__path": f"{tmp_path}/shards/{{00000..00002}}.tar",
        "data__image_key": "image.png",
        "data__shuffle_buffer": 3,
        "data__workers": workers,
        "data__held_out_path": f"{tmp_path}/shards/00000.tar",
        "data__held_out": 2,
    }
    whole = train(make_config(out=str(tmp_path / "whole"), trainer__max_steps=14, **options), quiet)
    train(make_config(trainer__max_steps=7, **options), quiet)
    assert same_weights(whole, train(make_config(trainer__max_steps=14, **options), quiet))


def test_a_conversion_leaves_no_shard_of_an_earlier_one(tmp_path: Path, tiny_set: Path) -> None:
    """A run on `shards/*.tar` would read its samples a second time."""
    shards = tmp_path / "shards"
    fill50k_to_shards(tiny_set, shards, 4, log=quiet)
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    with pytest.raises(
        UserError, match=r"shards: got 2 shards of another set \(00001\.tar, \.\.\.\), wanted at most 1"
    ):
        fill50k_to_shards(tiny_set, shards, 10, log=quiet)
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == before
    (shards / "other-00007.tar").touch()
    assert fill50k_to_shards(tiny_set, shards, 4, log=quiet) == (10, 3, 0)


def test_samples_that_became_unreadable_leave_no_older_shard(tmp_path: Path) -> None:
    folder, shards = write_set(tmp_path / "set", 3), tmp_path / "shards"
    fill50k_to_shards(folder, shards, 1, log=quiet)
    (folder / "source" / "0.png").unlink()
    assert fill50k_to_shards(folder, shards, 1, log=quiet) == (2, 2, 1)
    assert sorted(path.name for path in shards.iterdir()) == ["00000.tar", "00001.tar"]
