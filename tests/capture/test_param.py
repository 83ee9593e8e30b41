import torch

from mlc_controlnet.capture import Param, Rows

TENSORS = {"q": torch.arange(6.0).reshape(3, 2), "k": -torch.arange(4.0).reshape(2, 2)}


def test_a_whole_tensor_is_not_copied() -> None:
    param = Param.whole("q")
    assert param.name == "q"
    assert param.read(TENSORS).data_ptr() == TENSORS["q"].data_ptr()


def test_tensors_lie_one_under_another_in_the_order_given() -> None:
    param = Param((Rows("k"), Rows("q")))
    assert param.name == "k + 1 more"
    assert param.read(TENSORS).tolist() == [*TENSORS["k"].tolist(), *TENSORS["q"].tolist()]


def test_the_parts_of_a_tensor_have_names_of_their_own() -> None:
    top, bottom = Param((Rows("q", stop=2),)), Param((Rows("q", start=2),))
    assert (top.name, bottom.name) == ("q[0:2]", "q[2:]")
    assert torch.cat([top.read(TENSORS), bottom.read(TENSORS)]).equal(TENSORS["q"])


def test_a_param_may_lie_otherwise_than_in_the_checkpoint() -> None:
    param = Param((Rows("q"), Rows("k")), axes=(1, 0))
    assert param.read(TENSORS).equal(torch.cat([TENSORS["q"], TENSORS["k"]]).T)


def test_the_dtype_of_the_checkpoint_stays() -> None:
    half = {name: tensor.half() for name, tensor in TENSORS.items()}
    assert Param((Rows("q"), Rows("k"))).read(half).dtype == torch.float16
