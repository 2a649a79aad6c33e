"""Uplift: whom a variant really moves, how well that is known, and what choosing by it is worth.

Arrays throughout: a unit's variant is an index, its propensities are those of every variant as logged when it was
decided, shape (n_units, n_variants). What judges a model is only ever computed on units that the model has not seen.
"""
