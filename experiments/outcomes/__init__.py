"""What happened: which decisions an outcome counts for, and the rows it leaves."""
