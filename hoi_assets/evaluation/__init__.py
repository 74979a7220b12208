"""What pictures are worth: metrics, statistics of people and judges, scorecards, the report."""
