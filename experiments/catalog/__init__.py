"""What is defined, and its life: attributes, segmentations, placements, metrics, experiments."""
