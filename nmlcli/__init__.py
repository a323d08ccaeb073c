"""Commands for noisy model learning; rooms and directions are drawn in CONTRIBUTING.md."""

import os

# libgomp spins at its barriers, which costs up to 17 times the time on two busy cores. It reads
# this once, when torch is loaded, so it stands in the one module that is imported before all others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
