from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from mlc_controlnet.bundle.json_record import from_json, to_json
from mlc_controlnet.errors import UserError


@dataclass(frozen=True)
class Leaf:
    name: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Tree:
    leaves: Mapping[str, Leaf]
    pair: tuple[float, str]


TREE = Tree({"a": Leaf("first", (1, 2)), "b": Leaf("second", ())}, (0.5, "x"))
JSON = {"leaves": {"a": {"name": "first", "sizes": [1, 2]}, "b": {"name": "second", "sizes": []}}, "pair": [0.5, "x"]}


@dataclass(frozen=True)
class Grown:
    name: str
    leaves: int = 0  # in no file that was written before


def test_a_field_with_a_default_may_be_missing():
    assert from_json(Grown, {"name": "old"}, "file") == Grown("old", 0)
    assert from_json(Grown, {"name": "new", "leaves": 3}, "file") == Grown("new", 3)
    with pytest.raises(UserError, match=r"file: got no name, wanted every key of the format"):
        from_json(Grown, {"leaves": 3}, "file")
    with pytest.raises(UserError, match=r"file.leaves: got 'many', wanted an integer"):
        from_json(Grown, {"name": "new", "leaves": "many"}, "file")


def test_a_record_becomes_json_and_back():
    assert to_json(TREE) == JSON
    assert from_json(Tree, JSON, "file") == TREE


def test_a_record_that_was_read_can_not_be_changed():
    read = from_json(Tree, JSON, "file")
    with pytest.raises(TypeError):
        read.leaves["c"] = read.leaves["a"]


def test_an_integer_is_a_number_and_becomes_a_float():
    assert isinstance(from_json(Tree, {**JSON, "pair": [1, "x"]}, "file").pair[0], float)


def test_a_tuple_of_fixed_length_keeps_its_length():
    with pytest.raises(UserError, match=r"file.pair: got \[0.5\], wanted a list of 2"):
        from_json(Tree, {**JSON, "pair": [0.5]}, "file")


def test_the_place_of_a_misfit_is_named_to_the_last_index():
    broken = {**JSON, "leaves": {"a": {"name": "first", "sizes": [1, "2"]}}}
    with pytest.raises(UserError, match=r"file.leaves.a.sizes\[1\]: got '2', wanted an integer"):
        from_json(Tree, broken, "file")


def test_a_long_value_is_not_shown_whole():
    with pytest.raises(UserError) as caught:
        from_json(Tree, "x" * 1000, "file")
    assert len(str(caught.value)) < 250


def test_an_annotation_without_a_json_form_is_our_bug():
    with pytest.raises(TypeError, match="there is no JSON form"):
        from_json(complex, 1, "file")


def test_a_number_is_neither_true_nor_false():
    assert from_json(bool, False, "file") is False
    with pytest.raises(UserError, match=r"file: got 1, wanted true or false"):
        from_json(bool, 1, "file")
