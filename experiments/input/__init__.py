"""What every door checks: ids, JSON, definitions, attributes."""
