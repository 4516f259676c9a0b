"""The costs of a run: time, memory, energy, arithmetic and weights, measured while it runs."""
