"""Uplift: units with the attributes of their decisions, what a study of them says, and what follows from it."""
