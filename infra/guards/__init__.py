"""What is refused or reported before anything is created."""
