"""`python -m bench`."""

import sys

try:
    from bench.cli import main
except KeyboardInterrupt:  # while torch is being imported
    sys.exit(130)

main()
