"""What is loaded: one package a source, all of one shape."""
