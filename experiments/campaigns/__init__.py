"""Past campaigns: their logs read, imported as they were, and replayed."""
