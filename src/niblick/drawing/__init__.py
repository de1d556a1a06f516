"""Charts and pages: what is drawn, apart from what it is drawn of."""
