"""From a network to an engine file, and its export to Triton."""
