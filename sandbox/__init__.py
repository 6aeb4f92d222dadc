"""Emulators of source systems on loopback: to try the loaders without credentials, and to test them."""
