"""`python -m fastbts`."""

from fastbts.cli import main

main()
