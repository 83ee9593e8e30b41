import functools
import http.server
import io
import itertools
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.data.samples import Batch, ReadOptions
from mlc_controlnet.train.data.shards import ShardSource, ShardStream, expand, read_epoch

OPTIONS = ReadOptions(height=24, width=32, hint_channels=3, annotator=None)


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((24, 32, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_shards(folder: Path, counts: list[int]) -> str:
    """Shards of so many samples each; the prompt of a sample is its number."""
    number = 0
    for shard, count in enumerate(counts):
        files = {}
        for _ in range(count):
            files |= {f"{number:06d}.{kind}": png(number) for kind in ("jpg", "png")}
            files[f"{number:06d}.txt"] = str(number).encode()
            number += 1
        write_shard(folder / f"{shard:03d}.tar", files)
    return f"{folder}/{{000..{len(counts) - 1:03d}}}.tar"


def source(path: str, **changes) -> ShardSource:
    settings = {"urls": expand(path), "keys": ("png", "jpg", "txt"), "seed": 0, "buffer": 4, "options": OPTIONS}
    return ShardSource(**{**settings, **changes})


def take(stream: ShardStream, count: int) -> list[Batch]:
    return list(itertools.islice(stream, count))


@pytest.mark.parametrize("readers", [1, 2, 3, 5])
def test_every_sample_is_read_once_an_epoch_however_many_read(tmp_path: Path, readers: int) -> None:
    """Three uneven shards; five readers are more than shards."""
    shards = source(write_shards(tmp_path, [5, 1, 7]))
    for epoch in (0, 1):
        prompts = [s.prompt for reader in range(readers) for s in read_epoch(shards, epoch, reader, readers)]
        assert sorted(map(int, prompts)) == list(range(13))


def test_each_epoch_has_its_own_order_and_the_same_one_again(tmp_path: Path) -> None:
    shards = source(write_shards(tmp_path, [6, 6]))
    orders = [[s.prompt for s in read_epoch(shards, epoch, 0, 1)] for epoch in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0], key=int)


def test_a_buffer_of_one_keeps_the_order_of_a_shard(tmp_path: Path) -> None:
    shards = source(write_shards(tmp_path, [6]), buffer=1)
    assert [s.prompt for s in read_epoch(shards, 0, 0, 1)] == list("012345")


@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_share_uneven_shards_and_none_waits(tmp_path: Path, workers: int) -> None:
    """Both take as many batches as they like; over whole epochs each sees its share equally often."""
    shards = source(write_shards(tmp_path, [3, 9, 2, 4]))
    for rank in (0, 1):
        batches = take(ShardStream(shards, 2, rank, 2, workers), 20)
        assert len(batches) == 20 and all(len(batch.keys) == 2 for batch in batches)
    seen = Counter(prompt for batch in take(ShardStream(shards, 2, 0, 1, 0), 18) for prompt in batch.prompts)
    assert set(seen.values()) == {2} and len(seen) == 18


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_a_stream_goes_on_in_the_middle_of_an_epoch_where_it_stopped(tmp_path: Path, workers: int) -> None:
    shards = source(write_shards(tmp_path, [5, 3, 7, 4]))
    whole = [batch.prompts for batch in take(ShardStream(shards, 2, 0, 1, workers), 14)]
    for stop in (1, 5):
        first = ShardStream(shards, 2, 0, 1, workers)
        before = [batch.prompts for batch in take(first, stop)]
        second = ShardStream(shards, 2, 0, 1, workers)
        second.restore(first.state())
        assert before + [batch.prompts for batch in take(second, 14 - stop)] == whole


def test_a_stream_that_goes_on_with_other_workers_is_refused(tmp_path: Path) -> None:
    shards = source(write_shards(tmp_path, [5]))
    with pytest.raises(UserError, match=r"set data\.workers to 2"):
        ShardStream(shards, 2, 0, 1, 0).restore(ShardStream(shards, 2, 0, 1, 2).state())


def test_a_stream_that_goes_on_with_other_shards_is_refused(tmp_path: Path) -> None:
    before = ShardStream(source(write_shards(tmp_path, [5, 3])), 2, 0, 1, 0).state()
    (tmp_path / "moved").mkdir()
    ShardStream(source(write_shards(tmp_path / "moved", [5, 3])), 2, 0, 1, 0).restore(before)
    with pytest.raises(UserError, match=r"data\.path: got 3 shards.*trainer\.resume: false"):
        ShardStream(source(write_shards(tmp_path, [5, 3, 4])), 2, 0, 1, 0).restore(before)


def test_a_stream_that_goes_on_with_shards_of_other_sizes_is_refused(tmp_path: Path) -> None:
    before = ShardStream(source(write_shards(tmp_path, [5, 3])), 2, 0, 1, 0).state()
    with pytest.raises(UserError, match=r"data\.path: got shards of other sizes: 001\.tar.*trainer\.resume: false"):
        ShardStream(source(write_shards(tmp_path, [5, 40])), 2, 0, 1, 0).restore(before)
    elsewhere = source("https://example.org/{000..001}.tar")
    ShardStream(elsewhere, 2, 0, 1, 0).restore(before)  # sizes of what a server has are not asked for


def test_what_cannot_be_read_is_named_and_keeps_its_place(tmp_path: Path) -> None:
    good = {"0.jpg": png(0), "0.png": png(0), "0.txt": b"good"}
    write_shard(tmp_path / "0.tar", good | {"1.jpg": png(1), "1.txt": b"no control"})
    write_shard(tmp_path / "1.tar", {})
    write_shard(tmp_path / "2.tar", good | {"1.jpg": b"no picture", "1.png": png(1), "1.txt": b"p"})
    (tmp_path / "3.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:700])
    shards = source(f"{tmp_path}/{{0..4}}.tar", buffer=1)
    problems = {s.key.removeprefix(f"{tmp_path}/"): s.problem for s in read_epoch(shards, 0, 0, 1) if s.problem}
    assert problems["0.tar/1"] == "no .png (its extensions are jpg, txt)"
    assert problems["1.tar"] == "an empty shard"
    assert (problems["2.tar/1"] or "").startswith("picture: a file that is not an image, wanted a PNG, ")
    assert "a shard that cannot be read" in (problems["3.tar"] or "")
    assert problems["4.tar"] == "a shard that cannot be read (FileNotFoundError: No such file or directory)"
    readable = [s for s in read_epoch(shards, 0, 0, 1) if not s.problem]
    assert [s.prompt for s in readable] == ["good", "good"]


def test_shards_are_named_by_braces_stars_and_both_at_once(tmp_path: Path) -> None:
    write_shards(tmp_path, [1, 1, 1])
    every = tuple(f"{tmp_path}/00{number}.tar" for number in range(3))
    assert expand(f"{tmp_path}/*.tar") == expand(f"{tmp_path}/00{{0..2}}.tar") == every
    assert expand(f"{tmp_path}/*0.tar::{tmp_path}/00{{1..2}}.tar") == every
    assert expand("pipe:cat a*.tar") == ("pipe:cat a*.tar",)
    with pytest.raises(UserError, match="one shard or more"):
        expand(f"{tmp_path}/*.zip")


@pytest.mark.parametrize("keys", [("PNG", "JPG", "Txt"), ("png", "jpg", "txt")])
def test_extensions_are_the_same_in_small_and_capital_letters(tmp_path: Path, keys: tuple[str, str, str]) -> None:
    write_shard(tmp_path / "0.tar", {"0.JPG": png(9), "0.Png": png(200), "0.TXT": b"capitals"})
    write_shard(tmp_path / "1.tar", {"1.jpg": png(9), "1.png": png(200), "1.txt": b"small"})
    samples = list(read_epoch(source(f"{tmp_path}/{{0..1}}.tar", keys=keys), 0, 0, 1))
    assert sorted(s.prompt for s in samples) == ["capitals", "small"]


def test_the_control_image_may_have_any_extension(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", {"0.image.png": png(9), "0.seg.png": png(200), "0.caption": b"p"})
    shards = source(str(tmp_path / "0.tar"), keys=("seg.png", "image.png", "caption"))
    (sample,) = read_epoch(shards, 0, 0, 1)
    assert sample.prompt == "p"
    assert sample.control.unique().tolist() == [pytest.approx(200 / 255)]
    assert sample.pixels.unique().tolist() == [pytest.approx(9 / 127.5 - 1)]


def test_a_caption_has_no_byte_order_mark_and_another_encoding_is_named(tmp_path: Path) -> None:
    captions = ["\ufeffgrün\n".encode(), "grün".encode("utf-16"), "grün".encode("latin-1"), "red".encode("utf-16-le")]
    for number, caption in enumerate(captions):
        write_shard(tmp_path / f"{number}.tar", {"0.jpg": png(1), "0.png": png(1), "0.txt": caption})
    samples = sorted(read_epoch(source(f"{tmp_path}/{{0..3}}.tar", buffer=1), 0, 0, 1), key=lambda s: s.key)
    assert samples[0].prompt == "grün"
    assert [sample.problem for sample in samples] == [
        None,
        "its .txt: a text in UTF-16, wanted UTF-8",
        "its .txt: a text in an encoding of one byte per letter, such as Latin-1 (line 1), wanted UTF-8",
        "its .txt: a text in UTF-16, wanted UTF-8",
    ]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *arguments: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


def test_shards_come_over_http_and_through_a_pipe(tmp_path: Path, served: str) -> None:
    write_shards(tmp_path, [3, 2])
    for path in (f"{served}/{{000..001}}.tar", f"pipe:cat {tmp_path}/{{000..001}}.tar"):
        assert sorted(s.prompt for s in read_epoch(source(path), 0, 0, 1)) == list("01234")


def test_more_readers_than_samples_end_with_a_message_and_not_with_a_hang(tmp_path: Path) -> None:
    shards = source(write_shards(tmp_path, [1]))
    with pytest.raises(UserError, match="no sample for reader 1 of 2"):
        take(ShardStream(shards, 1, 1, 2, 0), 1)


@pytest.mark.parametrize("pattern", ["{000..001}.tar", "*.tar"])
def test_a_folder_may_have_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    (tmp_path / "run-12:30").mkdir()
    write_shards(tmp_path / "run-12:30", [2, 1])
    monkeypatch.chdir(tmp_path)
    samples = list(read_epoch(source(f"run-12:30/{pattern}"), 0, 0, 1))
    assert [sample.problem for sample in samples] == [None, None, None]
