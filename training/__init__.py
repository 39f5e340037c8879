"""Training of the fastbts networks with PyTorch; not part of the wheel."""
