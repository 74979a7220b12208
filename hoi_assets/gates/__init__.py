"""Write, audit, publish: expectation suites as Dagster asset checks."""
