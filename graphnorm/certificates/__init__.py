"""Certificates as files: what a canonicalisation claims, and a check that trusts none of it."""
