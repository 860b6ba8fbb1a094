"""`python -m mtlcli` is `mtl`."""

import sys

from mtlcli.cli import main

sys.exit(main())
