"""Scores of segmentations against reference labels, and their tables; needs no torch."""
