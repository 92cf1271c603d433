"""What runs again and again: when, and how it is written down."""
