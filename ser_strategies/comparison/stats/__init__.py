"""Statistics of scores: uncertainty over speakers and seeds, differences, and scores by group."""
