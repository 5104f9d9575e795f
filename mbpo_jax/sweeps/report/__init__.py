"""What came of a sweep: its figures and its page."""
