"""Chains of stages and grids of runs: planned, shared out, done once, and told."""
