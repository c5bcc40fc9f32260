"""Lets the tests of this folder import what official.py imports by the same names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
