"""Engines: the file format, the interface, and the backends that run a network."""
