import gzip
import threading
import urllib.error
import urllib.request

import pytest

from mlc_controlnet.cli.main import main
from mlc_controlnet.errors import UserError
from mlc_controlnet.site.serve import open_server

FILES = {
    "index.html": "text/html; charset=utf-8",
    "assets/page-1a2b.js": "text/javascript; charset=utf-8",
    "assets/page.css": "text/css; charset=utf-8",
    "bundle/manifest.json": "application/json",
    "bundle/circles-float32.wasm": "application/wasm",
    "bundle/params/00.bin": "application/octet-stream",
    "ring.png": "image/png",
}


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (tmp_path / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def address(site):
    with open_server(site, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # poll: end soon
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_its_content_type_and_the_page_is_isolated(address, name):
    with urllib.request.urlopen(f"{address}/{name}") as answer:
        assert answer.read() == name.encode()
        assert answer.headers["Content-Type"] == FILES[name]
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_compressed_copy_is_sent_to_those_who_take_it(site, address):
    wasm = site / "bundle" / "circles-float32.wasm"
    wasm.with_name(f"{wasm.name}.gz").write_bytes(gzip.compress(wasm.read_bytes()))
    path = f"{address}/bundle/circles-float32.wasm"
    with urllib.request.urlopen(urllib.request.Request(path, headers={"Accept-Encoding": "gzip, br"})) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Content-Type"] == "application/wasm"
        assert gzip.decompress(answer.read()) == wasm.read_bytes()
    with urllib.request.urlopen(path) as answer:
        assert answer.headers["Content-Encoding"] is None
        assert answer.read() == wasm.read_bytes()


def test_the_root_is_the_page(address):
    with urllib.request.urlopen(f"{address}/") as answer:
        assert answer.read() == b"index.html"


@pytest.mark.parametrize("path", ["/none.js", "/bundle/", "/../secret.txt", "/%2e%2e/secret.txt"])
def test_folders_and_what_is_outside_are_not_found(address, path, capfd):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(address + path)
    assert caught.value.code == 404


def test_it_listens_on_this_machine_only(site):
    with open_server(site, 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_taken_port_that_was_asked_for_is_refused(site):
    with open_server(site, 0) as server, pytest.raises(UserError, match=r"port \d+: got .*in use, wanted a free port"):
        open_server(site, server.server_port)


@pytest.mark.parametrize("port", [-1, 70000])
def test_what_is_no_port_is_refused(site, port):
    with pytest.raises(UserError, match=f"port {port}: got"):
        open_server(site, port)


def test_without_asking_any_free_port_will_do(site):
    with open_server(site) as first, open_server(site) as second:
        assert first.server_port != second.server_port


def test_a_page_that_was_not_built_is_told_how(tmp_path, capsys):
    assert main(["serve", str(tmp_path)]) == 2
    assert (
        "got no index.html, wanted the built page; build it with python -m mlc_controlnet build"
        in capsys.readouterr().err
    )
