"""Figures of an imaginary device, with round numbers."""

from mlc_controlnet.bench.operations.figures import KERNELS, OURS, Device, Figures, ReferenceRates, Row, Timing

PEER = "onnxruntime-web"
REFERENCE = ReferenceRates(gflops=100.0, gigabytes_per_second=10.0)


def timing(*milliseconds: float) -> Timing:
    return Timing(load_ms=5.0, first_call_ms=9.0, wall_ms=tuple(m + 1 for m in milliseconds), device_ms=milliseconds)


def made_up_figures(subject: str = KERNELS, name: str = "Model T", kind: str = "GPU") -> Figures:
    return Figures(
        subject=subject,
        command="python -m mlc_controlnet bench kernels --rounds 3 --keep",
        date="2026-01-31",
        device=Device(kind=kind, name=name, host="Chromium 1.0", processor="Abacus"),
        dtype="float32",
        versions={"apache-tvm": "0.27", PEER: "1.30"},
        clock="device",
        rows=(
            Row(
                name="large matmul",
                title="matmul, 512x512",
                is_reduced=False,
                gflop=1.0,
                megabytes=3.0,
                reference=REFERENCE,
                times={OURS: timing(10.0, 10.0, 10.0), PEER: timing(11.0, 11.0, 11.0)},
                ours_db=120.0,
                note="",
            ),
            Row(
                name="matmul",
                title="matmul, 64x64",
                is_reduced=False,
                gflop=1.0,
                megabytes=20.0,
                reference=REFERENCE,
                times={OURS: timing(20.0, 21.0, 90.0), PEER: timing(42.0, 41.0, 43.0)},
                ours_db=120.0,
                note="",
            ),
            Row(
                name="norm",
                title="norm, 64x64",
                is_reduced=True,
                gflop=0.1,
                megabytes=80.0,
                reference=REFERENCE,
                times={OURS: timing(16.0, 16.0, 16.0), PEER: timing(8.0, 8.0, 8.0)},
                ours_db=130.0,
                note="",
            ),
        ),
    )
