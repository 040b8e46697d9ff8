"""Runs of the command line that are killed while they write."""
