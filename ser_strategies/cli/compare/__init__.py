"""`compare`: a grid of strategies, folds and seeds, each run in a process of its own, and its report."""
