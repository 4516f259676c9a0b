"""How the encoder `starter` was made (corpus.py → train.py → export.py), and what it is worth (worth.py)."""
