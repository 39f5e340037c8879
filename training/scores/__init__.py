"""Scores of segmentations, and their tables."""
