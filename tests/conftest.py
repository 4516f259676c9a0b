"""What every test shares: no network, and one thread, with which tensors this small are fastest."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
