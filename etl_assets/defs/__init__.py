"""Only what discovers assets: components whose state is asked from a source."""
