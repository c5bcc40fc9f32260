"""Lets the tests of this folder import its other modules by their names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
