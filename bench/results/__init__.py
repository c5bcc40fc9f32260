"""The result folder."""
