"""Hand-written banks of questions, facts and phrasings for the demo data sets."""
