"""A page to look at results in a browser: one HTML file that works offline."""
