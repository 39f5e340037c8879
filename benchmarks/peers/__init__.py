"""Other ways to run the shipped network, next to fastbts: one module each, one protocol.

Each contender runs in a process of its own (`worker`), with the weights of one engine file (`kit`)
and the images of one case, and gives labels. `benchmarks/bench_peers.py` measures them in turns.
"""
