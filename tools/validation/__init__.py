"""Validation of the rules, operator by operator, against what the operators do to numbers."""
