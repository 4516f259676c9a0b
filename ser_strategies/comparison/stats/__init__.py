"""Statistics of scores: uncertainty over speakers and seeds, differences, and who is served worst."""
