"""Version and intended use."""

from __future__ import annotations

__version__ = "0.2.0"
DISCLAIMER = "research use only, not a medical device"
