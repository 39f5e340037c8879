"""From files and arrays to a Volume."""
