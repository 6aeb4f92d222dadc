"""What starts by the clock."""
