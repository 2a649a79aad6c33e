"""Benchmarks: ``make bench`` measures the service beside simpler ones, and writes the tables of docs/benchmarks.md."""
