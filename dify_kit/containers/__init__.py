"""What the command line does with the containers of a stack."""
