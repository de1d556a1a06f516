"""`python -m niblick` is the command line."""

import sys

try:
    from niblick.cli import main
except KeyboardInterrupt:  # while it is still importing
    sys.exit(130)

main()
