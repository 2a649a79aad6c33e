"""Pure mathematics of experiments: arrays in, arrays out; no clock, no database, no global random state."""
