"""What starts by itself because something happened."""
