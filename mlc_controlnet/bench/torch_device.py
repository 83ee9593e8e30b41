"""Wait for a torch device, so that a clock reads the time of the work and not of its queue."""

import torch


def synchronize(device: torch.device) -> None:
    """Return after `device` has finished all queued work. A processor has no queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
