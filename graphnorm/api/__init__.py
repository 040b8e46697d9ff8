"""What ``import graphnorm`` offers: trace, canonicalize, check, and their reports."""
