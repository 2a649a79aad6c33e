"""What a worker knows without asking: all definitions, weights, policies and keys of one moment."""
