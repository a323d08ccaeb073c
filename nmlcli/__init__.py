"""Commands for noisy model learning; rooms and directions are drawn in CONTRIBUTING.md."""

import os

# libgomp spins at its barriers, which costs up to 17 times the time on two busy cores; not to spin at
# all makes the small steps of a head 1.4 times as long on two idle ones. So it spins for a moment. It
# reads this once, when torch is loaded, so it stands in the module that is imported first.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
