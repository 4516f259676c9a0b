"""One corpus a page, over one base."""
