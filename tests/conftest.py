import os

from mtlcli.cli import SPINS

os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # as the command line has it; before torch is imported
