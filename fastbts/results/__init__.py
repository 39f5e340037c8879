"""Results on disk: read again, and compared with later ones."""
