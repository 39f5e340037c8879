"""Engines: the file, the interface, and the backends that run it."""
