"""Segment's tracking messages, as what they mean here: outcomes, ids that are one person, attributes of customers."""
