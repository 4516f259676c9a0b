"""What a run costs: time, memory, energy, arithmetic and weights, measured while it runs."""
