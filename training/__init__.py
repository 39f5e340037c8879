"""Training of the fastbts networks: data, network, loss, loop, evaluation, export (PyTorch; never in the wheel)."""
