"""Strategies compared: accuracy against cost, and a verdict with its uncertainty."""
