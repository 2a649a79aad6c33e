"""Corrections that an analyst makes and takes back: outcomes that count no more, hours of decisions left out."""
