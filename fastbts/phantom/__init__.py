"""A synthetic case for the demo and for tests."""

from fastbts.phantom.case import PhantomCase, make_case, write_case

__all__ = ["PhantomCase", "make_case", "write_case"]
