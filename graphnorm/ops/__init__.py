"""Facts about operators: what each of them is, whatever an analysis makes of that.

`traits` says which facts there are, the modules named after families hold one row per operator, `table`
finds rows by name and by trait, and `rules` is the registry in which every analysis keeps its rules.
"""
