"""Entry point of the console script and of `python -m stream_learner`."""

from __future__ import annotations

import sys

from stream_learner.cli import main

if __name__ == "__main__":
    sys.exit(main())
