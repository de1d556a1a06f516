"""`python -m niblick` is the command line."""

from niblick.cli import main

main()
