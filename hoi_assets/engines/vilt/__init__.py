"""ViLT as verifier (two heads) and as answerer of yes/no questions."""
