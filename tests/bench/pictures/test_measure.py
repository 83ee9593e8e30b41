import pytest

from mlc_controlnet.bench.pictures import measure


def test_components_of_bundles_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that rises after the first bundle's would count for the second one's."""
    called: list[str] = []

    def calls_of(engine: str) -> dict:
        return {name: lambda name=name: called.append(f"{engine} {name}") for name in ("unet", "decoder")}

    monkeypatch.setattr(measure, "_component_calls", calls_of)
    times = measure._time_components(["rules", "tuned"], 2)
    assert called == ["rules unet", "rules decoder", "tuned unet", "tuned decoder"] * 3
    assert [list(of_engine) for of_engine in times] == [["unet", "decoder"]] * 2
    assert all(milliseconds >= 0 for of_engine in times for milliseconds in of_engine.values())
