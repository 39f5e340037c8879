"""From a Segmentation to files."""
