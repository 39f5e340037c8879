"""Where a prediction runs: arrays on a CUDA device, and workspaces on the CPU and on a device."""
