"""How the encoder `starter` was made, and what it is worth: corpus.py → train.py → export.py → worth.py."""
