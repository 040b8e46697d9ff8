"""Certificates as files: what a canonicalisation claims, and a check that believes none of it."""
