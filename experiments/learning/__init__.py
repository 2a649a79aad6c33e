"""From tallies to weights: posteriors, versions, and who may write them."""
