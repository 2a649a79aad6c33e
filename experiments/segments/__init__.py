"""Segments: rules over attributes, compiled once."""
