"""Learners of uplift beside those of other libraries: the same data, folds, seeds and models inside."""
