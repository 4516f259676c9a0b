"""What turns frames into predictions, losses and scores: plain modules and pure functions."""
