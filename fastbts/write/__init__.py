"""Label images and preview pictures."""
