"""promote: what won becomes the policy of its segments, versioned, with its evidence; rolled back by one more."""
