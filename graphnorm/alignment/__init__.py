"""Function-preserving rewrites of two networks to normal forms, and the matching of normal forms."""
