"""Counts and exact sums by hour: moved, read, proven."""
