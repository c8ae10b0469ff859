"""The report of a run: one HTML file that says what it learnt, where it is wrong, what to trust."""
