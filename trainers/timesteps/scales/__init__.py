"""Reward scales, one file each."""
