"""What opens in a browser: the viewer, live pages, pages that lessons test."""
