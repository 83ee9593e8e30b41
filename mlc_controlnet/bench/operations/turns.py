"""Let our library take turns with each peer, one peer after the other, so that only two contestants hold memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlc_controlnet.bench.operations.case_files import CaseFiles, read_arrays
from mlc_controlnet.bench.operations.contestant import Contestant, Entrant
from mlc_controlnet.bench.operations.figures import OURS, Timing
from mlc_controlnet.bench.own_process import ProcessFailed
from mlc_controlnet.parity.parity import signal_to_noise_db


@dataclass(frozen=True)
class CaseOutcome:
    """The result of one case.

    Attributes:
        times: contestant -> its times, ours first; peers that failed are missing.
        ours_db: signal-to-noise ratio of our outputs against torch's in float32.
        failures: a sentence for each peer that failed.
    """

    times: dict[str, Timing]
    ours_db: float
    failures: tuple[str, ...]


def take_turns(ours: Entrant, peers: Sequence[Entrant], rounds: int, files: CaseFiles, least_db: float) -> CaseOutcome:
    """Time `rounds` turns of ours and of each peer, alternating, and compare every contestant's outputs.

    A peer fails if its process ends or raises an error, or if its outputs have less than `least_db` against
    `files.reference`.

    Raises:
        ProcessFailed: ours ended or raised an error.
        RuntimeError: ours computed something else than torch.
    """
    times: dict[str, Timing] = {}
    failures = []
    with Contestant(ours) as own:
        for entrant in peers:
            try:
                times[entrant.name] = _against(own, entrant, rounds, files, least_db)
            except ProcessFailed as failure:
                if failure.name == ours.name:
                    raise
                failures.append(str(failure))
        turns = [ms for timing in times.values() for ms in timing.ours_wall_ms]
        timing = own.timing(turns or [own.take_turn() for _ in range(rounds)])
        db = _decibels(own, files)
    if not db >= least_db:
        raise RuntimeError(f"{files.name}: our outputs differ from torch's: {db:.1f} dB, wanted {least_db} at least")
    return CaseOutcome({OURS: timing, **times}, db, tuple(failures))


def _against(own: Contestant, entrant: Entrant, rounds: int, files: CaseFiles, least_db: float) -> Timing:
    with Contestant(entrant) as peer:
        turns = [(own.take_turn(), peer.take_turn()) for _ in range(rounds)]
        ours, theirs = zip(*turns, strict=True)
        timing = peer.timing(theirs, ours)
        db = _decibels(peer, files)
    if not db >= least_db:
        raise ProcessFailed(peer.name, f"computed something else: {db:.0f} dB against torch, wanted {least_db:.0f}")
    return timing


def _decibels(contestant: Contestant, files: CaseFiles) -> float:
    pairs = zip(read_arrays(files.reference), contestant.outputs(files.outputs), strict=True)
    return min(signal_to_noise_db(wanted, got) for wanted, got in pairs)
