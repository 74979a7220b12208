"""The rating page: blinded studies in which raters judge pictures, and their votes."""
