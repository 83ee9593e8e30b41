"""python -m mlc_controlnet: the same commands as the installed script `mlc-controlnet`."""

from mlc_controlnet.cli.main import console

if __name__ == "__main__":
    console()
