"""Two networks in one vocabulary: harmless rewrites to a normal form, and the matching of normal forms."""
