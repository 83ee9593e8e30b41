"""A line before the seconds in which large packages are imported: without it, a command would seem to hang."""

BUILDS, TRAINS = "torch and TVM", "torch and diffusers"


def say_starting(packages: str) -> None:
    """Print the line for `packages`."""
    print(f"starting {packages} ...", flush=True)
