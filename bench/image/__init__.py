"""What runs inside the containers of the bench: nothing but Python's own library."""
