"""exports: decisions, outcomes and tallies as files, for a warehouse that fetches what is new; tables of results."""
