"""What any Python tool would need: whole files, threads, missing packages, limits, text made safe to show."""
