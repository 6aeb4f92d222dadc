"""What several test rooms share: stand-ins for servers that cannot be installed on a test machine."""
