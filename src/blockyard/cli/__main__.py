"""`python -m blockyard.cli`: the command where the script is not on PATH."""

from __future__ import annotations

import sys

from blockyard.cli.app import main

sys.exit(main())
