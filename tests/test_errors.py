import pickle

from mlc_controlnet.errors import UserError


def test_the_message_has_four_parts_on_one_line():
    error = UserError("steps", "0", "1 to 100", "choose another number")
    assert str(error) == "steps: got 0, wanted 1 to 100; choose another number"


def test_a_user_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(UserError("a", "b", "c", "d")))
    assert (error.subject, error.got, error.wanted, error.remedy) == ("a", "b", "c", "d")
