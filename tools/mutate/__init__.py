"""Mutation testing: small errors planted in rules, certificate and alignment; the tests must notice."""
