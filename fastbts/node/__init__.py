"""A DICOM node: receives studies, segments them, sends the results to another node."""
