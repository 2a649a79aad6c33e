"""Lists of any length: read as CSV, NDJSON or Parquet, decided or recorded slice by slice, answered row by row."""
