"""Preference pairs: where they come from, and their encoding."""
