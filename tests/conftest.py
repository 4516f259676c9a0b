"""What every test shares: no network, and warnings are errors unless a reason is given here."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
