"""What the frozen part of an encoder makes of each utterance, computed once and kept where it cannot lie."""
