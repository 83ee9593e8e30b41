"""Annotators from files: tiny networks as ONNX and TorchScript, written here."""

import base64
import io
import pickle
import sys
import types
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from mlc_controlnet.cli.main import main
from mlc_controlnet.errors import UserError
from mlc_controlnet.serve.annotators.ade20k import COLORS
from mlc_controlnet.serve.annotators.named import name_annotators
from mlc_controlnet.serve.annotators.outputs import pose, segmentation
from mlc_controlnet.serve.annotators.skeleton import LIMBS, to_openpose
from tests.serve.conftest import open_picture, ring, serving


def gradient(width=40, height=24):
    """Darker on the left, lighter on the right."""
    row = np.linspace(0, 255, width).astype(np.uint8)
    return Image.fromarray(np.repeat(row[None, :, None], height, 0).repeat(3, 2))


def write_onnx(path, nodes, shape=(1, 3, "h", "w"), dtype=TensorProto.FLOAT):
    source = helper.make_tensor_value_info("picture", dtype, shape)
    target = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "annotator", [source], [target])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def mean_of_channels(keepdims=1):
    return [helper.make_node("ReduceMean", ["picture"], ["out"], axes=[1], keepdims=keepdims)]


class Mean(torch.nn.Module):
    def forward(self, picture):
        return picture.mean(dim=1)


class Writes(torch.nn.Module):
    def forward(self, picture):
        torch.save(picture, "stolen.bin")
        return picture


def write_torchscript(path, module=None):
    torch.jit.save(torch.jit.script(Mean() if module is None else module), str(path))
    return path


@pytest.mark.parametrize("write", [lambda path: write_onnx(path, mean_of_channels()), write_torchscript])
def test_a_depth_network_makes_the_nearest_white(tmp_path, write):
    suffix = "pt" if write is write_torchscript else "onnx"
    annotate = name_annotators([f"depth={write(tmp_path / f'depth.{suffix}')},size=64"])["depth"]
    depth = np.asarray(annotate(gradient()))
    assert depth.shape == (24, 40)
    assert (depth.min(), depth.max()) == (0, 255)
    assert (np.diff(depth.astype(int), axis=1) >= 0).all()


def test_a_network_that_counts_from_near_to_far_is_turned_round(tmp_path):
    path = write_onnx(tmp_path / "depth.onnx", mean_of_channels(keepdims=0))
    near, far = (name_annotators([text])["depth"](gradient()) for text in (f"depth={path}", f"depth={path},far"))
    assert np.abs(np.asarray(near).astype(int) + np.asarray(far) - 255).max() <= 1


def test_a_network_gets_the_size_the_layout_and_the_range_that_it_wants(tmp_path):
    fixed = write_onnx(
        tmp_path / "fixed.onnx",
        [helper.make_node("ReduceMean", ["picture"], ["out"], axes=[3], keepdims=0)],
        (1, 16, 32, 3),
    )
    edges = np.asarray(name_annotators([f"softedge={fixed},range=unit"])["softedge"](gradient()))
    assert np.abs(edges.astype(int) - np.asarray(gradient())[..., 0]).max() <= 4


def test_logits_of_soft_edges_go_through_a_sigmoid(tmp_path):
    path = write_onnx(tmp_path / "hed.onnx", mean_of_channels())
    edges = np.asarray(name_annotators([f"hed={path},range=signed"])["softedge"](gradient()))
    assert abs(int(edges[0, 0]) - round(255 / (1 + np.e))) <= 1
    assert abs(int(edges[0, -1]) - round(255 / (1 + 1 / np.e))) <= 1


def test_classes_get_the_colours_of_ade20k():
    logits = np.zeros((1, 150, 2, 3), np.float32)
    logits[0, 2, :, 0] = logits[0, 12, :, 1] = logits[0, 149, :, 2] = 1
    picture = np.asarray(segmentation([logits], (6, 4)))
    assert [tuple(color) for color in picture[0, ::2]] == [tuple(COLORS[label]) for label in (2, 12, 149)]
    assert np.array_equal(segmentation([logits.argmax(axis=1)], (6, 4)), picture)
    assert tuple(COLORS[2]) == (6, 230, 230)


def test_joints_of_a_person_are_drawn_as_openpose_draws_them():
    joints = np.zeros((1, 1, 17, 3), np.float32)  # y, x, score
    joints[0, 0, 5], joints[0, 0, 6] = (0.5, 0.75, 0.9), (0.5, 0.25, 0.9)  # shoulders
    picture = np.asarray(pose([joints], (80, 60)))
    assert tuple(picture[30, 20]) == (255, 170, 0)  # the right shoulder
    assert tuple(picture[30, 60]) == (85, 255, 0)  # the left one
    assert tuple(picture[30, 40]) == (255, 85, 0)  # the neck between them
    assert picture[:25].max() == 0  # joints that are not there
    heat = np.zeros((1, 18, 12, 16), np.float32)
    heat[0, 2, 6, 4] = 1
    assert np.asarray(pose([heat], (160, 120)))[65, 45].any()
    assert len(LIMBS) == 17
    assert to_openpose(np.arange(51.0).reshape(17, 3))[10, 0] == 3 * 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a file that fails"),
        (b"\x08\x07garbage", "a file that fails"),
    ],
)
def test_a_damaged_onnx_file_is_one_clear_line(tmp_path, content, message):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(UserError, match=message):
        name_annotators([f"depth={tmp_path / 'bad.onnx'}"])


def test_weights_alone_are_no_program(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="no program: weights alone"):
        name_annotators([f"depth={tmp_path / 'weights.pt'}"])


def deflated_program(damage: bytes) -> bytes:
    """An archive whose program is deflated and begins with `damage`."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/code/net.py", "def forward(self, x):\n    return x\n" * 9)
    content = bytearray(written.getvalue())
    start = content.index(b"net/code/net.py") + len(b"net/code/net.py")
    content[start : start + len(damage)] = damage
    return bytes(content)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 cut off", deflated_program(b"\xff\xff\xff\xff")], ids=["cut", "spoilt"]
)
def test_a_damaged_torchscript_file_is_one_clear_line(tmp_path, content):
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(UserError, match="a damaged file, or another kind"):
        name_annotators([f"depth={tmp_path / 'bad.pt'}"])


def test_a_program_that_writes_files_is_refused(tmp_path):
    path = write_torchscript(tmp_path / "writes.pt", Writes())
    with pytest.raises(UserError, match=r"a program that calls torch\.save"):
        name_annotators([f"depth={path}"])


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl"])
def test_a_pickle_inside_a_torchscript_file_runs_nothing(tmp_path, name):
    source, changed, target = write_torchscript(tmp_path / "good.pt"), tmp_path / "bomb.pt", tmp_path / "ran"
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(changed, "w") as written:
        for entry in archive.infolist():
            is_target = entry.filename.endswith(f"/{name}")
            written.writestr(entry, pickle.dumps(Bomb(target), 2) if is_target else archive.read(entry))
    with pytest.raises(UserError, match="a file that fails"):
        name_annotators([f"depth={changed}"])
    assert not target.exists()
    pickle.load(io.BytesIO(pickle.dumps(Bomb(target), 2))).close()
    assert target.exists()  # Python's own reader would have run it


def test_a_network_that_does_not_fit_says_so(tmp_path):
    path = write_onnx(tmp_path / "two.onnx", [helper.make_node("Identity", ["picture"], ["out"])])
    with pytest.raises(UserError, match=r"annotator depth: got float32\[1, 3, 512, 512\] of its network"):
        name_annotators([f"depth={path}"])["depth"](gradient())


def test_controlnet_aux_draws_with_weights_of_a_folder(tmp_path, monkeypatch):
    class Detector:
        def __init__(self, folder):
            self.folder = folder

        @classmethod
        def from_pretrained(cls, folder):
            return cls(folder)

        def __call__(self, picture):
            assert self.folder == str(tmp_path)
            return picture.resize((512, 512)).convert("L")

    monkeypatch.setitem(sys.modules, "controlnet_aux", types.SimpleNamespace(HEDdetector=Detector))
    assert name_annotators([f"hed=controlnet_aux:{tmp_path}"])["softedge"](gradient()).size == (40, 24)
    monkeypatch.setitem(sys.modules, "controlnet_aux", None)
    with pytest.raises(UserError, match="pip install controlnet_aux"):
        name_annotators([f"hed=controlnet_aux:{tmp_path}"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("depth", "--annotator: got 'depth', wanted NAME=FILE"),
        ("magic=a.onnx", "--annotator: got 'magic', wanted one of depth, softedge, seg, openpose"),
        ("depth=none.onnx", "none.onnx: got no such file"),
        ("depth=FILE,size=7", "--annotator depth: got 'size=7'"),
        ("seg=FILE,far", "--annotator seg: got 'far'"),
        ("depth=controlnet_aux:none", "--annotator depth: got no folder 'none'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(value, message, tmp_path, linear_bundle, capsys):
    path = write_onnx(tmp_path / "depth.onnx", mean_of_channels())
    assert main(["serve", "--bundle", str(linear_bundle.path), "--annotator", value.replace("FILE", str(path))]) == 2
    assert message in capsys.readouterr().err


def test_a_named_annotator_serves_both_interfaces(linear_bundle, tmp_path):
    path = write_onnx(tmp_path / "depth.onnx", mean_of_channels())
    with serving(linear_bundle.path, annotators=name_annotators([f"depth={path}"])) as service:
        assert "depth" in service.ask("GET", "/v1/models").json()["annotators"]
        assert "depth" in service.ask("GET", "/controlnet/module_list").json()["module_list"]
        detected = service.ask(
            "POST", "/controlnet/detect", {"controlnet_module": "depth", "controlnet_input_images": [ring()]}
        ).json()["images"]
        depth = open_picture(detected[0])
        assert np.asarray(depth).max() == 255
        own = service.generate(annotator="depth").json()["images"][0]["image"]
        content = io.BytesIO()
        depth.convert("RGB").save(content, "PNG")
        given = service.generate(control_image=base64.b64encode(content.getvalue()).decode()).json()
        assert given["images"][0]["image"] == own
