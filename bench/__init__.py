"""The harness of dpo-bench. Importing it loads no torch."""

__version__ = "0.3.0"
