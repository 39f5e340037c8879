"""From a Volume to labels: normalize, window, infer, label, report."""
