"""Training cases: read, augmented, synthesised."""
