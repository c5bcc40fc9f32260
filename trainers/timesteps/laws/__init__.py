"""Timestep laws, one file each."""
