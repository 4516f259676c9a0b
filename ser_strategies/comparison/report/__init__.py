"""The report of a comparison: a page that needs nothing else, and the same as markdown and pictures."""
