"""The rating page: blinded studies in which people judge pictures, and what they said."""
