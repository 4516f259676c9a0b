"""What every test shares: no network, one thread, with which tensors this small are fastest, and Ctrl-C."""

import os
import signal

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell ignores Ctrl-C for what it starts in the background, and every process would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
