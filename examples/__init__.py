"""Short programs that use fastbts; README.md lists them."""
