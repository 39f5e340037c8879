"""`python -m fastbts.cli`."""

from fastbts.cli import main

main()
