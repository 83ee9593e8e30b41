"""Build a bundle: the same as `mlc-controlnet build`, from a checkout.

python build.py --target webgpu        the bundled model `circles`, and the demo site around it
python build.py --target llvm          the same model for this machine's processor
"""

import sys

from mlc_controlnet.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["build", *sys.argv[1:]], owns_process=True))
