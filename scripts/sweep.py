"""Runs ``relit sweep``, which replaced this script."""

import sys

from lit_models.cli.sweep import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
