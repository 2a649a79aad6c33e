"""The domain: definitions, the five steps of the loop, background work. Knows optimizer, not Flask."""
