"""Triton Inference Server: a server on the loopback, its clients, and 200 requests at once."""
