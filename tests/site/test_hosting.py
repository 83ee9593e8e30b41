"""What static hosts are told: the page's own policy, and what may be cached."""

import gzip
import re
from pathlib import Path

import numpy as np

from mlc_controlnet.locations import WEB
from mlc_controlnet.site.hosting import compress_shard, headers_file, nginx_file, policy


def test_the_policy_is_the_pages_own():
    page = (WEB / "index.html").read_text(encoding="utf-8")
    (content,) = re.findall(r'http-equiv="Content-Security-Policy"\s+content="([^"]*)"', page)
    assert content == policy()


def test_the_policy_allows_no_code_but_the_pages_files_and_webassembly():
    directives = dict(directive.split(" ", 1) for directive in policy().split("; "))
    assert directives["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert not any("unsafe-inline" in sources for sources in directives.values())


def test_every_header_is_sent_for_every_address():
    """nginx drops the headers of a server block where a location has one of its own."""
    locations = re.findall(r"location (\S+) \{(.*?)\n\}", nginx_file(), re.DOTALL)
    assert [address for address, _ in locations] == ["/", "/assets/"]
    for _, content in locations:
        for name in ("Content-Security-Policy", "Permissions-Policy", "Cache-Control", "gzip_static on"):
            assert name in content


def test_only_names_that_change_with_their_content_are_cached_for_ever():
    rules: dict[str, list[str]] = {}
    for line in headers_file().splitlines()[1:]:
        if line.startswith("/"):
            rules[line] = []
        else:
            rules[[*rules][-1]].append(line.strip())
    cached = {address for address, lines in rules.items() if any("immutable" in line for line in lines)}
    assert cached == {"/assets/*"}
    assert all("Cache-Control" not in line for line in rules["/*"])  # hosts join the values of several rules


def test_the_camera_is_allowed_to_the_page_and_to_no_frame_of_another_origin():
    (allowed,) = re.findall(r"Permissions-Policy: (.*)", headers_file())
    assert "camera=(self)" in allowed.split(", ")
    assert "microphone=()" in allowed.split(", ")


def test_a_shard_has_a_compressed_copy_where_that_is_smaller(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights, codes = tmp_path / "00.bin", tmp_path / "01.bin"
    weights.write_bytes(rng.normal(0, 0.02, 400_000).astype("<f2").tobytes())
    codes.write_bytes(rng.bytes(400_000))
    for shard in (weights, codes):
        compress_shard(shard)
    copy = tmp_path / "00.bin.gz"
    assert gzip.decompress(copy.read_bytes()) == weights.read_bytes()
    assert copy.stat().st_size < 0.94 * weights.stat().st_size
    assert not (tmp_path / "01.bin.gz").exists()


def test_a_copy_that_is_there_already_stays(tmp_path: Path) -> None:
    """Bundles that stay in a site have gigabytes."""
    (tmp_path / "00.bin").write_bytes(bytes(1000))
    (tmp_path / "00.bin.gz").write_bytes(b"copy")
    compress_shard(tmp_path / "00.bin")
    assert (tmp_path / "00.bin.gz").read_bytes() == b"copy"
