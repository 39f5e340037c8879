"""File formats that reading and writing share."""
